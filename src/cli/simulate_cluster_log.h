// What `divvy simulate cluster` writes while it runs: the progress line on a terminal, and the
// decisions as CSV for tools/replay_check.py. Used by the verb only.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "src/base/result.h"
#include "src/placement/input/inventory.h"
#include "src/placement/sim/bench.h"

namespace divvy::cli {

// A line on the terminal that shows how far the runs are; nothing when stderr is no terminal.
class Progress {
 public:
  explicit Progress(size_t runs);
  ~Progress();
  void Start(const std::string& what);
  void Show(double part) const;

 private:
  size_t runs_;
  bool on_;
  size_t started_ = 0;
  std::string what_;
};

// One line per decision and a last one that says how many there were and how many pods arrived, so
// that a log that was cut off is known. Pods are named by their number in the list, because names
// may repeat there; nodes by name and copy (see --replicate).
class DecisionLog {
 public:
  DecisionLog(const std::string& path, const placement::Inventory& inventory);
  void Write(const placement::Event& event);
  Result<void> Close();

 private:
  std::string path_;
  const placement::Inventory& inventory_;
  std::ofstream out_;
  uint64_t written_ = 0;
  uint64_t arrived_ = 0;
  int why_ = 0;  // the errno of the first write that failed
};

}  // namespace divvy::cli
