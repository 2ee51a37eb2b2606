// Physical memory that lives as long as anything refers to it: VMM handles, mappings, bindings,
// exports, and imported memory. One record each, with its references counted; the charge is
// credited when the last one goes. Records are addressed by index. Any thread.
#pragma once

#include "src/shim/books.h"

namespace divvy::shim {

// A LiveEntry whose aux is a record it refers to, instead of an amount of its own.
constexpr uint8_t kRefersToRecord = 1;
constexpr uint32_t kNoRecord = UINT32_MAX;

enum class RecordRef { kHandle, kMapping };

// A record with one handle reference; its units were charged already. kNoRecord: no memory for
// the record (the charge then stands until the process ends).
uint32_t AddRecord(unsigned device, Kind kind, uint64_t units) noexcept;
void RefRecord(uint32_t record, RecordRef ref) noexcept;
void UnrefRecord(uint32_t record, RecordRef ref) noexcept;

// Imported memory tells its size only when it is mapped: charges what is more than before.
Verdict GrowRecord(uint32_t record, uint64_t units, DriverSymbol symbol) noexcept;

unsigned RecordDevice(uint32_t record) noexcept;

// The memory was exported as this descriptor: as long as the descriptor is open in this process
// the memory may live without a handle, so the charge stays.
void RecordExported(uint32_t record, int fd) noexcept;

// The live record that this process exported as `fd` (or a duplicate of it), or kNoRecord. A handle
// reference is taken.
uint32_t FindExported(int fd) noexcept;

// Physical memory mapped into a sparse array lives until the array is destroyed.
void BindToArray(uint32_t record, uint64_t array) noexcept;
void UnbindArray(uint64_t array) noexcept;

// Credits what is held by exported descriptors that have been closed since.
void SweepExports() noexcept;

}  // namespace divvy::shim
