#include "src/hook/container.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace divvy::hook {
namespace {

using Json = nlohmann::json;

// A field that need not be there, of whatever type.
const Json& Field(const Json& object, const char* name) {
  static const Json nothing;
  if (!object.is_object()) return nothing;
  const auto it = object.find(name);
  return it == object.end() ? nothing : *it;
}

std::string Text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool StartsWith(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

bool IsGpuNode(const std::string& path) {
  return StartsWith(path, "/dev/nvidia") || path == "/dev/dxg";
}

void AddSplit(std::vector<std::string>& out, const std::string& list) {
  std::stringstream stream(list);
  for (std::string dir; std::getline(stream, dir, ':');)
    if (StartsWith(dir, "/")) out.push_back(dir);
}

}  // namespace

Result<Container> ParseState(const std::string& text) {
  const Json state = Json::parse(text, nullptr, false);
  if (!state.is_object())
    return Invalid("stdin is no OCI state: divvy-hook is for container runtimes to call");
  Container container;
  container.id = Text(Field(state, "id"));
  container.bundle = Text(Field(state, "bundle"));
  if (container.bundle.empty()) return Invalid("the OCI state on stdin names no bundle");
  return container;
}

Status ParseConfig(const std::string& text, Container& container) {
  const Json config = Json::parse(text, nullptr, false);
  const std::string root = Text(Field(Field(config, "root"), "path"));
  if (root.empty()) return Invalid(container.bundle + "/config.json names no root");
  container.root = StartsWith(root, "/") ? root : container.bundle + "/" + root;
  constexpr char kVariable[] = "LD_LIBRARY_PATH=";
  for (const Json& entry : Field(Field(config, "process"), "env"))
    if (const std::string one = Text(entry); StartsWith(one, kVariable))
      AddSplit(container.library_path, one.substr(sizeof kVariable - 1));
  for (const Json& mount : Field(config, "mounts")) {
    const std::string at = Text(Field(mount, "destination"));
    const size_t slash = at.rfind('/');
    if (slash == std::string::npos) continue;
    if (at.compare(slash + 1, 10, "libcuda.so") == 0)
      container.driver_mounts.push_back(slash == 0 ? "/" : at.substr(0, slash));
    // Without the right to make nodes, runtimes mount the machine's.
    container.has_gpu_nodes = container.has_gpu_nodes || IsGpuNode(at);
  }
  for (const Json& device : Field(Field(config, "linux"), "devices"))
    container.has_gpu_nodes = container.has_gpu_nodes || IsGpuNode(Text(Field(device, "path")));
  return {};
}

Status ReadBundle(Container& container) {
  const std::string path = container.bundle + "/config.json";
  std::ifstream file(path);
  if (!file) return NotFound("cannot read " + path);
  std::stringstream text;
  text << file.rdbuf();
  return ParseConfig(text.str(), container);
}

}  // namespace divvy::hook
