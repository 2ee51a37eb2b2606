// The openb readers: see openb_csv.h.
#include "src/placement/input/openb_csv.h"

#include <unordered_map>
#include <unordered_set>

#include "src/placement/input/csv.h"

namespace divvy::placement {
namespace {

constexpr int64_t kMaxAmount = 1'000'000'000;  // milli CPUs or MiB of one node or pod

// Reads number columns into targets; the first bad one is the error.
struct Columns {
  const CsvReader& csv;
  Status status;
  template <typename T>
  void Get(std::string_view column, int64_t low, int64_t high, T* to) {
    if (!status) return;
    const Result<int64_t> value = csv.Number(column, low, high);
    if (value) {
      *to = static_cast<T>(*value);
    } else {
      status = value.error();
    }
  }
};

// "A|B" to a mask of models; empty allows any.
Result<uint64_t> ParseModels(std::string_view spec, Models* models) {
  if (spec.empty()) return kAnyModel;
  uint64_t mask = 0;
  while (!spec.empty()) {
    const size_t bar = std::min(spec.find('|'), spec.size());
    if (bar > 0) {
      const Result<uint8_t> id = models->Intern(spec.substr(0, bar));
      if (!id) return id.error();
      mask |= uint64_t{1} << *id;
    }
    spec.remove_prefix(std::min(bar + 1, spec.size()));
  }
  return mask == 0 ? kAnyModel : mask;
}

}  // namespace

Status ReadOpenbNodes(std::string_view text, const std::string& file, Inventory* out) {
  CsvReader csv(text, file);
  if (Status s = csv.ReadHeader({"sn", "cpu_milli", "memory_mib", "gpu", "model"}); !s) return s;
  const bool memory = csv.Has("gpu_memory_mib");
  out->device_memory_known = memory;
  std::unordered_set<std::string> names;
  for (;;) {
    const Result<bool> row = csv.Next();
    if (!row) return row.error();
    if (!*row) return {};
    NodeSpec node;
    node.name = csv.Text("sn");
    Columns columns{csv, {}};
    columns.Get("cpu_milli", 0, kMaxAmount, &node.cpu_milli);
    columns.Get("memory_mib", 0, kMaxAmount, &node.memory_mib);
    columns.Get("gpu", 0, kMaxDevices, &node.devices);
    if (memory) columns.Get("gpu_memory_mib", 0, kMaxAmount, &node.device_memory_mib);
    if (!columns.status) return columns.status;
    if (node.name.empty()) return csv.At("a node without a name");
    if (!names.insert(node.name).second) return csv.At("node " + node.name + " stands twice");
    const Result<uint8_t> model = out->models.Intern(csv.Text("model"));
    if (!model) return csv.At(model.error().message);
    node.model = *model;
    out->nodes.push_back(std::move(node));
    out->closed.push_back(false);
  }
}

Status ReadOpenbPods(std::string_view text, const std::string& file, Inventory* out) {
  CsvReader csv(text, file);
  if (Status s = csv.ReadHeader({"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}); !s) {
    return s;
  }
  const bool memory = csv.Has("gpu_memory_mib");
  if (out->spaces.empty()) out->spaces.emplace_back("default");
  std::unordered_map<std::string, uint32_t> spellings;
  for (uint32_t i = 0; i < out->spellings.size(); ++i) spellings[out->spellings[i]] = i;
  for (;;) {
    const Result<bool> row = csv.Next();
    if (!row) return row.error();
    if (!*row) return {};
    Pod pod;
    pod.name = csv.Text("name");
    Shape& shape = pod.request.shape;
    Columns columns{csv, {}};
    columns.Get("cpu_milli", 0, kMaxAmount, &shape.cpu_milli);
    columns.Get("memory_mib", 0, kMaxAmount, &shape.memory_mib);
    columns.Get("num_gpu", 0, 1'000'000, &shape.devices);
    columns.Get("gpu_milli", 0, kWholeMilli, &shape.compute_milli);
    if (memory) columns.Get("gpu_memory_mib", 0, kMaxAmount, &shape.device_memory_mib);
    if (!columns.status) return columns.status;
    if (pod.name.empty()) return csv.At("a pod without a name");
    const std::string spec(csv.Text("gpu_spec"));
    const Result<uint64_t> models = ParseModels(spec, &out->models);
    if (!models) return csv.At(models.error().message);
    const auto [spelling, added] =
        spellings.try_emplace(spec, static_cast<uint32_t>(out->spellings.size()));
    if (added) out->spellings.push_back(spec);
    pod.spelling = spelling->second;
    shape.models = *models;
    // No device, or nothing of it, asked for: a pod for CPUs only.
    if (shape.devices == 0 || (shape.compute_milli == 0 && shape.device_memory_mib == 0)) {
      shape.devices = shape.compute_milli = shape.device_memory_mib = 0;
      shape.models = kAnyModel;
    }
    out->pods.push_back(std::move(pod));
  }
}

}  // namespace divvy::placement
