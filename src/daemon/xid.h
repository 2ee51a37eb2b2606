// What an Xid (a fault that NVIDIA's driver reports) means for the tenants of the device, and what
// the kernel's log says of who met it.
//
// Side: the daemon. Source: NVIDIA's "XID Errors" guide; which of them are a program's own doing is
// also how NVIDIA's Kubernetes device plugin decides.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/unique_fd.h"

namespace divvy::daemon {

struct XidMeaning {
  const char* what;     // "GPU memory page fault"
  bool of_program;      // ends the program that caused it; the device goes on
  bool hits_every_one;  // ends all programs on the device
};
// Unknown ones count against the device.
XidMeaning MeaningOf(uint64_t xid);

// One line of the kernel's log: "NVRM: Xid (PCI:0000:04:00): 31, pid=1234, name=python, Ch ...".
struct XidLine {
  std::string pci;  // "0000:04:00"
  uint64_t xid = 0;
  pid_t pid = 0;  // 0: not told
};
std::optional<XidLine> ParseXidLine(const std::string& line);
// Whether a line's "0000:04:00" is NVML's "00000000:04:00.0".
bool SamePci(const std::string& of_line, const std::string& of_nvml);

// The kernel's log from now on. Where it may not be read (no root) it has nothing.
class KernelLog {
 public:
  KernelLog();
  // Lines that came since the last call; never blocks.
  std::vector<XidLine> Read();

 private:
  UniqueFd fd_;
};

}  // namespace divvy::daemon
