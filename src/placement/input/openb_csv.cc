// The openb readers: see openb_csv.h.
#include "src/placement/input/openb_csv.h"

#include <charconv>
#include <unordered_map>
#include <unordered_set>

#include "src/base/visible.h"
#include "src/placement/input/csv.h"
#include "src/placement/input/names.h"

namespace divvy::placement {
namespace {

constexpr int64_t kMaxAmount = 1'000'000'000;  // milli CPUs or MiB of one node or pod

// Reads number columns into targets; the first bad one is the error. A column that may be missing
// leaves its target as it is, also where the field is empty.
struct Columns {
  const CsvReader& csv;
  Status status;
  template <typename T>
  void Get(int column, int64_t low, int64_t high, T* to) {
    if (!status) return;
    const Result<int64_t> value = csv.Number(column, low, high);
    if (value) {
      *to = static_cast<T>(*value);
    } else {
      status = value.error();
    }
  }
  template <typename T>
  void GetIf(int column, int64_t low, int64_t high, T* to) {
    if (!csv.Text(column).empty()) Get(column, low, high, to);
  }
};

void WarnIfCut(const CsvReader& csv, Inventory* out) {
  if (csv.EndsInLine()) {
    out->warnings.push_back(csv.At("no line end after the last row: is the file cut off?").message);
  }
}

}  // namespace

Status ReadOpenbNodes(std::string_view text, const std::string& file, Inventory* out) {
  CsvReader csv(text, file);
  if (Status s = csv.ReadHeader({"sn", "cpu_milli", "memory_mib", "gpu", "model"}); !s) return s;
  const int name = csv.Column("sn"), cpu = csv.Column("cpu_milli"),
            memory = csv.Column("memory_mib"), gpu = csv.Column("gpu"), model = csv.Column("model"),
            device_memory = csv.Column("gpu_memory_mib"), numa = csv.Column("numa"),
            link_group = csv.Column("link_group"), cordoned = csv.Column("cordoned");
  out->device_memory_known = device_memory >= 0;
  std::unordered_set<std::string> names;
  for (;;) {
    const Result<bool> row = csv.Next();
    if (!row) return row.error();
    if (!*row) break;
    NodeSpec node;
    node.name = csv.Text(name);
    int closed = 0;
    Columns columns{csv, {}};
    columns.Get(cpu, 0, kMaxAmount, &node.cpu_milli);
    columns.Get(memory, 0, kMaxAmount, &node.memory_mib);
    columns.Get(gpu, 0, kMaxDevices, &node.devices);
    columns.GetIf(device_memory, 0, kMaxAmount, &node.device_memory_mib);
    columns.GetIf(cordoned, 0, 1, &closed);
    if (!columns.status) return columns.status;
    if (node.name.empty()) return csv.At("a node without a name");
    if (!names.insert(node.name).second)
      return csv.At("node " + VisibleName(node.name) + " stands twice");
    const Result<uint8_t> id = out->models.Intern(csv.Text(model));
    if (!id) return csv.At(id.error().message);
    node.model = *id;
    for (const auto& [column, what, to] :
         {std::tuple(numa, "numa", &node.numa),
          std::tuple(link_group, "link_group", &node.link_group)}) {
      if (Status s = ParseGroups(csv.Text(column), '|', node.devices, to); !s) {
        return csv.At(std::string(what) + ": " + s.error().message);
      }
    }
    out->nodes.push_back(std::move(node));
    out->closed.push_back(closed != 0);
  }
  if (out->nodes.empty()) return csv.At("the node list has no nodes");
  WarnIfCut(csv, out);
  return {};
}

Status ReadOpenbPods(std::string_view text, const std::string& file, Inventory* out) {
  CsvReader csv(text, file);
  if (Status s = csv.ReadHeader({"name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"}); !s) {
    return s;
  }
  const int name = csv.Column("name"), cpu = csv.Column("cpu_milli"),
            memory = csv.Column("memory_mib"), gpu = csv.Column("num_gpu"),
            milli = csv.Column("gpu_milli"), spec = csv.Column("gpu_spec"),
            device_memory = csv.Column("gpu_memory_mib"), link = csv.Column("link"),
            space = csv.Column("namespace"), priority = csv.Column("priority"),
            least = csv.Column("min_gpu_milli"), gang = csv.Column("gang"),
            node = csv.Column("node");
  Numbered spellings(&out->spellings), spaces(&out->spaces), gangs(&out->gangs);
  for (;;) {
    const Result<bool> row = csv.Next();
    if (!row) return row.error();
    if (!*row) break;
    Pod pod;
    pod.name = csv.Text(name);
    Shape& shape = pod.request.shape;
    Columns columns{csv, {}};
    columns.Get(cpu, 0, kMaxAmount, &shape.cpu_milli);
    columns.Get(memory, 0, kMaxAmount, &shape.memory_mib);
    columns.Get(gpu, 0, 1'000'000, &shape.devices);
    columns.Get(milli, 0, kWholeMilli, &shape.compute_milli);
    columns.GetIf(device_memory, 0, kMaxAmount, &shape.device_memory_mib);
    columns.GetIf(priority, INT32_MIN, INT32_MAX, &pod.request.priority);
    columns.GetIf(least, 0, kWholeMilli, &pod.request.min_compute_milli);
    if (!columns.status) return columns.status;
    if (pod.name.empty()) return csv.At("a pod without a name");
    if (pod.request.min_compute_milli > shape.compute_milli) {
      return csv.At("min_gpu_milli is more than gpu_milli");
    }
    const Result<uint64_t> models = ParseModels(csv.Text(spec), &out->models);
    if (!models) return csv.At(models.error().message);
    shape.models = *models;
    pod.spelling = spellings.Of(csv.Text(spec));
    const Result<Link> how = ParseLink(csv.Text(link));
    if (!how) return csv.At(how.error().message);
    shape.link = *how;
    const uint32_t in = spaces.Of(csv.Text(space).empty() ? "default" : csv.Text(space));
    if (in > UINT16_MAX) return csv.At("more than 65536 namespaces");
    pod.request.space = static_cast<uint16_t>(in);
    if (!csv.Text(gang).empty()) {
      pod.request.gang = 1 + gangs.Of(GangName(pod.request.space, csv.Text(gang)));
    }
    pod.line = static_cast<uint32_t>(csv.line());
    pod.node = csv.Text(node);
    // No device, or nothing of it, asked for: a pod for CPUs only.
    if (shape.devices == 0 || (shape.compute_milli == 0 && shape.device_memory_mib == 0)) {
      shape.devices = shape.compute_milli = shape.device_memory_mib = 0;
      shape.models = kAnyModel;
      shape.link = Link::kAny;
      pod.request.min_compute_milli = 0;
    }
    if (shape.devices <= 1) shape.link = Link::kAny;
    out->pods.push_back(std::move(pod));
  }
  if (out->pods.empty()) return csv.At("the pod list has no pods");
  WarnIfCut(csv, out);
  return {};
}

}  // namespace divvy::placement
