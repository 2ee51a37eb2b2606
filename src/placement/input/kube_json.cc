// The Kubernetes readers: see kube_json.h. Exceptions of the JSON library end here.
#include "src/placement/input/kube_json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "src/base/visible.h"
#include "src/placement/input/names.h"

namespace divvy::placement {
namespace {

using Json = nlohmann::json;

constexpr int64_t kMaxAmount = 1'000'000'000;  // milli CPUs or MiB of one node or pod
constexpr char kGpu[] = "nvidia.com/gpu";
constexpr char kProduct[] = "nvidia.com/gpu.product";

// The member at a path, or null.
const Json& At(const Json& json, std::initializer_list<const char*> path) {
  static const Json kNull;
  const Json* at = &json;
  for (const char* key : path) {
    if (!at->is_object()) return kNull;
    const auto it = at->find(key);
    if (it == at->end()) return kNull;
    at = &*it;
  }
  return *at;
}

std::string Text(const Json& json) { return json.is_string() ? json.get<std::string>() : ""; }

// A quantity member (a string, or a number) times 1000; 0 if it is absent.
Result<int64_t> Milli(const Json& resources, const char* name) {
  const Json& value = At(resources, {name});
  if (value.is_null()) return int64_t{0};
  const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
  Result<int64_t> milli = ParseQuantityMilli(text);
  if (!milli) return Invalid(std::string(name) + ": " + milli.error().message);
  return milli;
}

// Reads several amounts; the first bad one is the error.
struct Amounts {
  const Json& resources;
  Status status;
  int64_t Milli(const char* name) { return Get(name, 1, kMaxAmount); }
  int64_t Whole(const char* name, int64_t most) { return Get(name, 1000, most); }
  int64_t Count(const char* name, int64_t most) {  // of extended resources: no parts
    const Result<int64_t> milli = placement::Milli(resources, name);
    if (milli && *milli % 1000 != 0 && status) {
      status = Invalid(std::string(name) + " is not a whole number");
    }
    return Get(name, 1000, most);
  }
  int64_t Mib(const char* name) { return Get(name, int64_t{1000} << 20, kMaxAmount); }
  int64_t WholeMib(const char* name) {  // of what there is, not of what is asked for
    return Get(name, int64_t{1000} << 20, kMaxAmount, /*up=*/false);
  }

 private:
  int64_t Get(const char* name, int64_t unit, int64_t most, bool up = true) {
    const Result<int64_t> milli = placement::Milli(resources, name);
    if (!milli) {
      if (status) status = milli.error();
      return 0;
    }
    const int64_t amount = *milli / unit + (up && *milli % unit != 0);
    if (amount > most && status) {
      status = Invalid(std::string(name) + " is more than " + std::to_string(most));
    }
    return std::min(amount, most);
  }
};

// The lines on which the items of the list "items" begin (of a text that is JSON).
std::vector<uint32_t> LinesOfItems(std::string_view text) {
  std::vector<uint32_t> lines;
  uint32_t line = 1;
  int depth = 0;
  int list = -1;  // depth inside the list
  bool quoted = false, key_items = false;
  std::string_view last;  // the last string at depth 1
  size_t begin = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    line += c == '\n';
    if (quoted) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        quoted = false;
        last = text.substr(begin, i - begin);
      }
      continue;
    }
    if (c == '"') {
      quoted = true;
      begin = i + 1;
    } else if (c == ':' && depth == 1) {
      key_items = last == "items";
    } else if (c == '{' || c == '[') {
      if (list >= 0 && depth == list) lines.push_back(line);
      ++depth;
      if (c == '[' && depth == 2 && key_items && list < 0) list = 2;
    } else if (c == '}' || c == ']') {
      if (depth-- == list) list = -2;  // the list is over
    }
  }
  return lines;
}

uint32_t LineOf(const std::vector<uint32_t>& lines, size_t item) {
  return item < lines.size() ? lines[item] : 1;  // one object, not a list
}

std::string_view WithoutMark(std::string_view text) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  return text;
}

// The line on which more than kDeepest objects and arrays are open; 0: nowhere.
size_t LineTooDeep(std::string_view text) {
  constexpr int kDeepest = 200;  // recursion goes as deep as they do
  size_t line = 1;
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    line += c == '\n';
    if (c == '"') {
      quoted = !quoted;
    } else if (quoted) {
      i += c == '\\';
    } else if (c == '{' || c == '[') {
      if (++depth > kDeepest) return line;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return 0;
}

struct List {
  Json items;
  std::vector<size_t> wanted;  // those of the kind that is read
};

// The objects of a list of `what` ("nodes"). Those of another kind than this one ("Node") are left
// out, with a warning; one has to be of it.
Result<List> Items(std::string_view text, const std::string& file, const std::string& what,
                   const std::string& kind, Inventory* out) {
  if (const size_t line = LineTooDeep(text); line > 0) {
    return Invalid(file + ":" + std::to_string(line) + ": nested too deeply");
  }
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    const size_t at = std::min(error.byte, text.size());
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n');
    return Invalid(file + ":" + std::to_string(line) + ": not JSON, or cut off");
  }
  const Json& items = At(json, {"items"});
  if (items.is_array() && items.empty()) {
    return Invalid(file + ":1: the list \"items\" has no " + what);
  }
  List list;
  if (items.is_array()) {
    list.items = items;
  } else if (!Text(At(json, {"metadata", "name"})).empty()) {
    list.items = Json::array({json});
  } else {
    return Invalid(file + ":1: no list \"items\" (kubectl get ... -o json)");
  }
  std::string other;
  size_t first = 0;
  for (size_t i = 0; i < list.items.size(); ++i) {
    const std::string found = Text(At(list.items[i], {"kind"}));
    if (found.empty() || found == kind) {
      list.wanted.push_back(i);
    } else if (other.empty()) {
      other = found;
      first = i;
    }
  }
  if (list.wanted.empty()) {
    return Invalid(file + ":1: a list of kind " + VisibleName(other) + " where " + what +
                   " are wanted");
  }
  if (!other.empty()) {
    out->warnings.push_back(
        file + ":" + std::to_string(LineOf(LinesOfItems(text), first)) +
        ": left out: " + std::to_string(list.items.size() - list.wanted.size()) +
        " items that are no " + what + " (the first: " + VisibleName(other) + ")");
  }
  return list;
}

Status ReadNode(const Json& json, Inventory* out) {
  NodeSpec node;
  node.name = Text(At(json, {"metadata", "name"}));
  if (node.name.empty()) return Invalid("a node without a name");
  Amounts allocatable{At(json, {"status", "allocatable"}), {}};
  node.cpu_milli = static_cast<int32_t>(allocatable.Milli("cpu"));
  node.memory_mib = static_cast<int32_t>(allocatable.WholeMib("memory"));
  node.slots = static_cast<int32_t>(allocatable.Whole("pods", 100000));
  if (node.slots == 0) node.slots = 110;  // the kubelet's own default
  int64_t devices = allocatable.Whole(kGpu, 1'000'000);
  Amounts labels{At(json, {"metadata", "labels"}), {}};
  if (const int64_t count = labels.Whole("nvidia.com/gpu.count", 1'000'000); count > 0) {
    devices = std::min(devices, count);
  }
  node.device_memory_mib = static_cast<int32_t>(labels.Whole("nvidia.com/gpu.memory", kMaxAmount));
  for (const Status& s : {allocatable.status, labels.status}) {
    if (!s) return s;
  }
  if (devices > kMaxDevices) {
    return Invalid("more than " + std::to_string(kMaxDevices) + " GPUs");
  }
  node.devices = static_cast<int32_t>(devices);
  out->device_memory_known |= node.device_memory_mib > 0;
  const Result<uint8_t> model =
      out->models.Intern(Text(At(json, {"metadata", "labels", kProduct})));
  if (!model) return model.error();
  node.model = *model;
  for (const auto& [key, to] :
       {std::pair("divvy/gpu-numa", &node.numa), std::pair("divvy/gpu-links", &node.link_group)}) {
    std::string groups = Text(At(json, {"metadata", "labels", key}));
    if (groups.empty()) groups = Text(At(json, {"metadata", "annotations", key}));
    if (Status s = ParseGroups(groups, '.', node.devices, to); !s) {
      return Invalid(std::string(key) + ": " + s.error().message);
    }
  }
  const Json& unschedulable = At(json, {"spec", "unschedulable"});
  bool closed = unschedulable.is_boolean() && unschedulable.get<bool>();
  if (const Json& conditions = At(json, {"status", "conditions"}); conditions.is_array()) {
    for (const Json& c : conditions) {
      closed |= Text(At(c, {"type"})) == "Ready" && Text(At(c, {"status"})) != "True";
    }
  }
  out->nodes.push_back(std::move(node));
  out->closed.push_back(closed);
  return {};
}

std::string GangOf(const Json& json) {
  for (const char* label : {"scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io"}) {
    if (const std::string name = Text(At(json, {"metadata", "labels", label})); !name.empty()) {
      return name;
    }
  }
  return Text(At(json, {"metadata", "annotations", "scheduling.k8s.io/group-name"}));
}

struct Names {
  Numbered spaces, gangs, spellings;
};

// The largest device memory of the nodes whose model is allowed.
int32_t LargestMemory(const Inventory& inventory, uint64_t models) {
  int32_t largest = 0;
  for (const NodeSpec& n : inventory.nodes) {
    if (models >> n.model & 1) largest = std::max(largest, n.device_memory_mib);
  }
  return largest;
}

Status ReadPod(const Json& json, Names* names, Inventory* out) {
  const std::string phase = Text(At(json, {"status", "phase"}));
  if (phase == "Succeeded" || phase == "Failed") return {};
  Pod pod;
  std::string space = Text(At(json, {"metadata", "namespace"}));
  if (space.empty()) space = "default";
  const std::string name = Text(At(json, {"metadata", "name"}));
  if (name.empty()) return Invalid("a pod without a name");
  pod.name = space + "/" + name;
  pod.node = Text(At(json, {"spec", "nodeName"}));
  const uint32_t in = names->spaces.Of(space);
  if (in > UINT16_MAX) return Invalid("more than 65536 namespaces");
  pod.request.space = static_cast<uint16_t>(in);
  if (const std::string gang = GangOf(json); !gang.empty()) {
    pod.request.gang = 1 + names->gangs.Of(GangName(pod.request.space, gang));
  }
  if (const Json& priority = At(json, {"spec", "priority"}); priority.is_number_integer()) {
    pod.request.priority =
        static_cast<int32_t>(std::clamp<int64_t>(priority.get<int64_t>(), INT32_MIN, INT32_MAX));
  }
  uint64_t models = kAnyModel;
  if (const std::string product = Text(At(json, {"spec", "nodeSelector", kProduct}));
      !product.empty()) {
    const Result<uint8_t> model = out->models.Intern(product);
    if (!model) return model.error();
    models = uint64_t{1} << *model;
    pod.spelling = names->spellings.Of(product);
  } else {
    pod.spelling = names->spellings.Of("");
  }
  int64_t cpu = 0, memory = 0, devices = 0, compute = 0, device_memory = 0;
  if (const Json& containers = At(json, {"spec", "containers"}); containers.is_array()) {
    for (const Json& container : containers) {
      Amounts requests{At(container, {"resources", "requests"}), {}};
      // Extended resources stand in limits; requests may be left out.
      Amounts limits{At(container, {"resources", "limits"}), {}};
      const auto from = [&](const char* name) -> Amounts& {
        return At(requests.resources, {name}).is_null() ? limits : requests;
      };
      cpu += from("cpu").Milli("cpu");
      memory += from("memory").Mib("memory");
      const int64_t own = limits.Count(kGpu, 1'000'000);
      devices += own;
      const int64_t cores = limits.Whole("nvidia.com/gpucores", 100);
      const int64_t percent = limits.Whole("nvidia.com/gpumem-percentage", 100);
      const int32_t largest = percent > 0 ? LargestMemory(*out, models) : 0;
      if (percent > 0 && largest == 0) {
        return Invalid(
            "nvidia.com/gpumem-percentage: no node that it may use says how much memory its GPUs "
            "have (label nvidia.com/gpu.memory)");
      }
      const int64_t mib =
          std::max(limits.Whole("nvidia.com/gpumem", kMaxAmount), percent * largest / 100);
      // A request has one figure for all its devices: whole ones, where one container wants those.
      const bool whole = own > 0 && cores == 0 && mib == 0;
      compute = std::max(compute, whole ? int64_t{kWholeMilli} : cores * 10);
      device_memory = std::max(device_memory, mib);
      for (const Status& s : {requests.status, limits.status}) {
        if (!s) return s;
      }
    }
  }
  if (cpu > kMaxAmount || memory > kMaxAmount || devices > 1'000'000) {
    return Invalid("the containers together ask for too much");
  }
  Shape& shape = pod.request.shape;
  shape.cpu_milli = static_cast<int32_t>(cpu);
  shape.memory_mib = static_cast<int32_t>(memory);
  if (devices > 0) {
    shape.devices = static_cast<int32_t>(devices);
    shape.compute_milli = static_cast<int32_t>(compute);
    shape.device_memory_mib = static_cast<int32_t>(device_memory);
    shape.models = models;
    const Result<Link> link = ParseLink(Text(At(json, {"metadata", "annotations", "divvy/link"})));
    if (!link) return Invalid("divvy/" + link.error().message);
    if (devices > 1) shape.link = *link;
    Amounts own{At(json, {"metadata", "annotations"}), {}};
    pod.request.min_compute_milli = static_cast<int32_t>(own.Whole("divvy/min-gpucores", 100)) * 10;
    if (!own.status) return own.status;
    if (pod.request.min_compute_milli > shape.compute_milli) {
      return Invalid("divvy/min-gpucores is more than the pod asks for");
    }
  }
  out->pods.push_back(std::move(pod));
  return {};
}

Error InItem(std::string_view text, const std::string& file, size_t i, const Json& item,
             const Error& error) {
  const std::string name = Text(At(item, {"metadata", "name"}));
  return Invalid(file + ":" + std::to_string(LineOf(LinesOfItems(text), i)) + ": item " +
                 std::to_string(i + 1) + (name.empty() ? "" : " (" + VisibleName(name) + ")") +
                 ": " + error.message);
}

}  // namespace

bool LooksLikeJson(std::string_view text) {
  text = WithoutMark(text);
  const size_t at = text.find_first_not_of(" \t\r\n");
  return at != std::string_view::npos && (text[at] == '{' || text[at] == '[');
}

Result<int64_t> ParseQuantityMilli(std::string_view text) {
  const Error bad = Invalid("\"" + VisibleName(text) + "\" is not a quantity");
  double value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc()) return bad;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  static const std::unordered_map<std::string_view, double> kUnits = {
      {"", 1},        {"n", 1e-9},    {"u", 1e-6},    {"m", 1e-3},   {"k", 1e3},     {"M", 1e6},
      {"G", 1e9},     {"T", 1e12},    {"P", 1e15},    {"E", 1e18},   {"Ki", 0x1p10}, {"Mi", 0x1p20},
      {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"Pi", 0x1p50}, {"Ei", 0x1p60}};
  const auto factor = kUnits.find(unit);
  if (factor == kUnits.end()) return bad;
  const double milli = std::ceil(value * factor->second * 1000 - 1e-6);
  if (!(milli >= 0 && milli <= 1e18)) return bad;
  return static_cast<int64_t>(milli);
}

Status ReadKubeNodes(std::string_view text, const std::string& file, Inventory* out) {
  text = WithoutMark(text);
  const Result<List> list = Items(text, file, "nodes", "Node", out);
  if (!list) return list.error();
  std::unordered_set<std::string> names;
  for (const size_t i : list->wanted) {
    Status s = ReadNode(list->items[i], out);
    if (s && !names.insert(out->nodes.back().name).second) {
      s = Invalid("node " + VisibleName(out->nodes.back().name) + " stands twice");
    }
    if (!s) return InItem(text, file, i, list->items[i], s.error());
  }
  return {};
}

Status ReadKubePods(std::string_view text, const std::string& file, Inventory* out) {
  text = WithoutMark(text);
  const Result<List> list = Items(text, file, "pods", "Pod", out);
  if (!list) return list.error();
  std::unordered_set<std::string> seen;
  Names names{Numbered(&out->spaces), Numbered(&out->gangs), Numbered(&out->spellings)};
  const std::vector<uint32_t> lines = LinesOfItems(text);
  for (const size_t i : list->wanted) {
    const size_t before = out->pods.size();
    Status s = ReadPod(list->items[i], &names, out);
    if (s && out->pods.size() > before) {
      out->pods.back().line = LineOf(lines, i);
      if (!seen.insert(out->pods.back().name).second) {
        s = Invalid("pod " + VisibleName(out->pods.back().name) + " stands twice");
      }
    }
    if (!s) return InItem(text, file, i, list->items[i], s.error());
  }
  if (out->pods.empty()) return Invalid(file + ":1: every pod of the list has ended");
  return {};
}

}  // namespace divvy::placement
