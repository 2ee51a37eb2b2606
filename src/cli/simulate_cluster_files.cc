// Lists, orders and outputs: see simulate_cluster_files.h.
#include "src/cli/simulate_cluster_files.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include "src/base/visible.h"
#include "src/cli/app.h"
#include "src/placement/input/kube_json.h"
#include "src/placement/input/openb_csv.h"
#include "src/placement/sim/bench.h"

namespace divvy::cli {
namespace {

namespace fs = std::filesystem;
using placement::Inventory;
using placement::Order;
using placement::SomePods;

Result<std::string> ReadFile(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return Invalid(path + ": is a folder, not a file");
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    return NotFound(path + ": cannot be read: " + Why(errno) +
                    (errno == ENOENT ? " (a file of the trace? set DIVVY_TRACE_DIR)" : ""));
  }
  std::string text;
  if (const auto size = fs::file_size(path, ignored); !ignored) text.reserve(size);
  for (std::vector<char> part(1 << 16); in;) {
    in.read(part.data(), static_cast<std::streamsize>(part.size()));
    text.append(part.data(), static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return Error{ErrorCode::kIo, path + ": reading it failed"};
  return text;
}

// A file as named, or in the folder that DIVVY_TRACE_DIR names.
std::string Locate(const std::string& name) {
  std::error_code ignored;
  const char* dir = std::getenv("DIVVY_TRACE_DIR");
  if (dir == nullptr || fs::exists(name, ignored)) return name;
  const fs::path there = fs::path(dir) / name;
  return fs::exists(there, ignored) ? there.string() : name;
}

// "FILE:LINE: pods WHAT: 7 (default/a, default/b, ...)", with the line of the first.
std::string About(const Lists& lists, const Inventory& inventory, const SomePods& pods,
                  const std::string& what) {
  const std::vector<std::string> names = NamesOf(inventory, pods);
  std::string text = Locate(lists.pods) + ":" + std::to_string(inventory.pods[pods.first[0]].line) +
                     ": pods " + what + ": " + std::to_string(pods.count) + " (";
  for (size_t i = 0; i < names.size(); ++i) text += (i > 0 ? ", " : "") + names[i];
  return text + (pods.count > names.size() ? ", ...)" : ")");
}

// Where the order of a seed may stand, best first.
std::vector<std::string> OrderPlaces(const Lists& lists, uint64_t seed) {
  const fs::path pods = Locate(lists.pods);
  std::string name = pods.stem().string();
  if (const size_t at = name.find("pod_list_"); at != std::string::npos) name.erase(at, 9);
  name += "_" + std::to_string(seed) + ".txt";
  std::vector<std::string> places;
  if (!lists.orders.empty()) places.push_back((fs::path(lists.orders) / name).string());
  places.push_back((pods.parent_path() / "fixtures" / name).string());
  return places;
}

}  // namespace

void Note(const std::string& text) { std::fprintf(stderr, "divvy: %s\n", Visible(text).c_str()); }

std::string Why(int error) { return error != 0 ? std::strerror(error) : "reason unknown"; }

Result<void> WriteFile(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out) return Error{ErrorCode::kIo, path + ": cannot be written: " + Why(errno)};
  return {};
}

Inventory Load(const Lists& lists) {
  Inventory inventory;
  for (const bool nodes : {true, false}) {
    const std::string path = Locate(nodes ? lists.nodes : lists.pods);
    const std::string text = OrFail(ReadFile(path));
    const bool json = placement::LooksLikeJson(text);
    if (nodes) {
      OrFail(json ? placement::ReadKubeNodes(text, path, &inventory)
                  : placement::ReadOpenbNodes(text, path, &inventory));
    } else {
      OrFail(json ? placement::ReadKubePods(text, path, &inventory)
                  : placement::ReadOpenbPods(text, path, &inventory));
    }
  }
  OrFail(placement::CheckInventory(inventory, Locate(lists.nodes), Locate(lists.pods)));
  for (const std::string& warning : inventory.warnings) Note("warning: " + warning);
  return inventory;
}

WithoutPlace FindWithoutPlace(const Lists& lists, const Inventory& inventory) {
  const WithoutPlace found{placement::FindUnplaceable(inventory),
                           placement::PodsWithoutRoom(inventory),
                           placement::PodsWithoutDemand(inventory)};
  const auto say = [&](const SomePods& pods, const std::string& what) {
    if (pods.count > 0) Note("warning: " + About(lists, inventory, pods, what));
  };
  const int64_t closed = inventory.ClosedMilli() / placement::kWholeMilli;
  if (closed > 0) {
    Note(
        "warning: " + Locate(lists.nodes) + ": " + std::to_string(closed) + " of " +
        std::to_string(inventory.TotalMilli() / placement::kWholeMilli) +
        " GPUs are on nodes that take nothing new (cordoned or not ready); they count as capacity");
  }
  say(found.ever.on_any_node, std::string("that fit on no node") +
                                  (closed > 0 ? " that takes new ones" : "") +
                                  ", not even an empty one, and are always refused");
  say(found.ever.in_cluster,
      "that ask, alone or as a gang, for more compute than all nodes have, and do not arrive");
  say(found.ever.on_unknown_node, "that run on nodes that the node list lacks, and are left out");
  say(found.no_demand,
      "that ask for memory of GPUs but for no compute, and bring no demand to any figure");
  say(found.in_room, "that run on nodes without room for them, and are left out");
  return found;
}

std::optional<Order> ReadOrder(const Lists& lists, const Inventory& inventory, uint64_t seed,
                               bool say) {
  const std::vector<std::string> places = OrderPlaces(lists, seed);
  const std::string name = fs::path(places.front()).filename().string();
  bool found = false;
  for (const std::string& path : places) {
    std::error_code error;
    if (!fs::exists(path, error)) {
      if (error) Fail(NotFound(path + ": cannot be read: " + error.message()));
      continue;
    }
    found = true;
    Result<Order> order = placement::ParseOrder(OrFail(ReadFile(path)), path, inventory);
    if (order.ok()) {
      if (say && &path != places.data()) {
        Note("warning: no order for these lists in " + lists.orders + ": " + path + " is used");
      }
      return std::move(*order);
    }
    if (order.error().code != ErrorCode::kNotFound) Fail(order.error());
    if (say) Note("warning: not used: " + order.error().message);
  }
  if (say && found) Note("the order of seed " + std::to_string(seed) + " is drawn");
  if (say && !found && !lists.orders.empty()) {
    Note("warning: no " + name + " in " + lists.orders + ": the order is drawn");
  }
  return std::nullopt;
}

void CheckOutputs(const Lists& lists, const std::vector<uint64_t>& seeds, const std::string& plot,
                  const std::string& decisions) {
  std::error_code error;
  for (const std::string& path : {plot, decisions}) {
    if (path.empty()) continue;
    for (const std::string& list : {Locate(lists.nodes), Locate(lists.pods)}) {
      if (fs::equivalent(path, list, error)) Fail(Invalid(path + ": is a list that is read"));
    }
    for (const uint64_t seed : seeds) {
      for (const std::string& order : OrderPlaces(lists, seed)) {
        if (fs::equivalent(path, order, error)) Fail(Invalid(path + ": is an order that is read"));
      }
    }
    errno = 0;
    if (!std::ofstream(path, std::ios::binary | std::ios::app)) {
      Fail(Error{ErrorCode::kIo, path + ": cannot be written: " + std::strerror(errno)});
    }
  }
  // Both are there now, however they are spelled.
  if (!plot.empty() && !decisions.empty() && fs::equivalent(plot, decisions, error) &&
      fs::is_regular_file(plot, error)) {
    Fail(Invalid("--plot and --decisions name the same file"));
  }
}

}  // namespace divvy::cli
