// How devices take turns between processes, by NVML's name for them: what the arbiter's constants
// and the simulated models stand on. `divvy verify hardware` measures both on the device at hand;
// divvyd takes what it says (--slice-us, --switch-us). Pure; any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace divvy {

struct DeviceTiming {
  uint32_t slice_us = 1024;  // a process's turn while another one wants the device
  uint32_t switch_us = 60;   // from one process to the next
};

namespace device_timing {

struct Family {
  std::string_view word;  // of the name
  uint32_t switch_us;
};
inline constexpr Family kFamilies[] = {
    {"A100", 80},  {"A800", 80}, {"A40", 80},  {"A30", 80},    {"A16", 80},   {"A10", 80},
    {"A2", 80},    {"L40", 80},  {"L40S", 80}, {"L20", 80},    {"L4", 80},    {"A10G", 80},
    {"V100", 140}, {"T4", 140},  {"T4G", 140}, {"TITAN", 140}, {"P100", 140},
};

// As a word by itself, or followed by "-": "A100-PCIE-40GB".
constexpr bool Has(std::string_view name, std::string_view word) {
  for (size_t at = name.find(word); at != std::string_view::npos; at = name.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || name[at - 1] == ' ';
    if (begins && (end == name.size() || name[end] == ' ' || name[end] == '-')) return true;
  }
  return false;
}

}  // namespace device_timing

// The slice is the open kernel driver's default for channel groups (kernel_fifo_gv100.c: 1024 us).
// The costs of a switch are assumptions, as the simulated models have them (published: 142 us,
// fitted to one product's losses): 60 us for Hopper and later, 80 for Ampere and Ada, 140 for what
// is older. A name that is not known is taken for a new device.
constexpr DeviceTiming TimingOf(std::string_view device_name) {
  DeviceTiming out;
  for (const device_timing::Family& family : device_timing::kFamilies)
    if (device_timing::Has(device_name, family.word)) out.switch_us = family.switch_us;
  return out;
}

}  // namespace divvy
