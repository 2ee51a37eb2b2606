// The files of `divvy simulate cluster`: finds and reads the lists and arrival orders, says on
// stderr what is odd about them, and writes. What cannot be read or is damaged ends the verb. Used
// by the verb only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/cli/simulate_cluster_report.h"
#include "src/placement/input/inventory.h"
#include "src/placement/sim/order.h"

namespace divvy::cli {

struct Lists {
  std::string nodes, pods;  // as named on the command line
  std::string orders;       // folder; may be empty
};

// To stderr, one line, whatever names it holds.
void Note(const std::string& text);

Result<void> WriteFile(const std::string& path, const std::string& text);
// That the outputs (empty: none) can be written, as far as can be told before the run, and are
// neither one file nor, by whatever name, one of the lists or orders that are read.
void CheckOutputs(const Lists& lists, const std::vector<uint64_t>& seeds, const std::string& plot,
                  const std::string& decisions);
// Of an errno; 0 = unknown.
std::string Why(int error);

placement::Inventory Load(const Lists& lists);
// Which pods have no place whatever is decided; says so.
WithoutPlace FindWithoutPlace(const Lists& lists, const placement::Inventory& inventory);
// The order file of a pod list: openb_pod_list_X.csv -> openb_X_SEED.txt in Lists::orders, or in
// the folder "fixtures" beside the list. No value: there is none for these lists; `say` says why.
std::optional<placement::Order> ReadOrder(const Lists& lists, const placement::Inventory& inventory,
                                          uint64_t seed, bool say);

}  // namespace divvy::cli
