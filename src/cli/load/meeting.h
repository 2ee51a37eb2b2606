// Two loads that wait for each other on the GPU, as ranks of a collective do: before and after its
// kernel each operation stores a word that the other's kernel spins on. The words lie in a file
// that both map and register with the driver. One thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "src/cli/load/driver.h"

namespace divvy::cli {

class Meeting {
 public:
  // `where` is FILE,SIDE with side 0 or 1; the file has to be there and to be empty or zero.
  static Result<std::unique_ptr<Meeting>> Open(const Driver& driver, const std::string& where);
  ~Meeting();
  Meeting(const Meeting&) = delete;
  Meeting& operator=(const Meeting&) = delete;

  // Whether to go on with another operation. Once one of them has been told to stop, both go on to
  // the same number, so that neither waits for ever.
  bool More(bool stop);
  struct Words {
    CUdeviceptr mine, other;
    uint32_t value;
  };
  // Of the present operation; `half` 0 before its kernel, 1 after it.
  Words At(unsigned half) const;

 private:
  struct Page;
  Meeting(Page* page, CUdeviceptr device, unsigned side)
      : page_(page), device_(device), side_(side) {}
  Page* page_;
  CUdeviceptr device_;
  unsigned side_;
  uint32_t operation_ = 0;
};

}  // namespace divvy::cli
