// The standard cases of `divvy verify compute`: who shares a device with whom, what each of them
// does, and what is expected. Data; the times are those of the device.
#pragma once

#include <string>
#include <vector>

namespace divvy::cli {

// One tenant: its share and the `divvy load` that it runs.
struct CaseTenant {
  std::string name;
  double percent = 0;  // guaranteed
  double max_percent = 100;
  std::string cls = "standard";
  // The load; 0 = not. Times in microseconds.
  double kernel_us = 0, graph_us = 0;
  unsigned copy_mib = 0;
  double vary = 1;          // kernels from kernel_us/vary to kernel_us*vary
  int meets = -1;           // 0 or 1: side of two that wait for each other in each operation
  bool event = false;       // nothing but an event record
  unsigned sync_every = 0;  // 0: never waits
  double think_us = 0;      // host time between requests
  double rate = 0;          // requests a second, at random times
  const char* stream = "own";
  bool cooperative = false;
  std::vector<unsigned> devices = {0};  // of the case's; several: alternating
  const char* several = "";

  double OperationUs() const { return kernel_us + graph_us; }
};

enum class CaseKind {
  kLike,        // all saturate with kernels of one length: share error
  kSaturating,  // all saturate: share error
  kLight,       // shortfall from the lesser of solo use and guarantee
  kCap,         // error from the cap
  kAlone,       // shortfall from solo use
};

struct Case {
  std::string name;
  CaseKind kind;
  double budget_percent = 0;  // kLight, kCap, kAlone; 0 = none, print what was got
  std::vector<CaseTenant> tenants;
  unsigned devices = 1;
  double p99_budget = 0;  // the first tenant's, times solo; 0 = none
  double length = 1;      // of its runs, relative to the others'
};

const std::vector<Case>& StandardCases();

}  // namespace divvy::cli
