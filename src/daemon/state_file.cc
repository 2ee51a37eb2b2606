#include "src/daemon/state_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "src/base/unique_fd.h"

namespace divvy::daemon {
namespace {
constexpr int kVersion = 1;
}

Status WriteByRename(const std::string& path, const std::string& content) {
  const std::string beside = path + ".new";
  UniqueFd fd(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) return IoError("cannot write " + beside, errno);
  for (size_t at = 0; at < content.size();) {
    const ssize_t n = ::write(fd.get(), content.data() + at, content.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const Status failed = IoError("cannot write " + beside, n < 0 ? errno : ENOSPC);
      ::unlink(beside.c_str());
      return failed;
    }
    at += static_cast<size_t>(n);
  }
  // No fsync: the folder is in memory (/run), and a power cut ends every tenant as well.
  if (::rename(beside.c_str(), path.c_str()) != 0) return IoError("cannot replace " + path, errno);
  return {};
}

Result<State> LoadState(const std::string& path) {
  State state;
  std::ifstream in(path);
  if (!in) {
    if (::access(path.c_str(), F_OK) == 0) return Error{ErrorCode::kDenied, "cannot read " + path};
    return state;
  }
  std::stringstream text;
  text << in.rdbuf();
  const nlohmann::json j = nlohmann::json::parse(text.str(), nullptr, false);
  if (!j.is_object() || !j.contains("version") || j["version"] != kVersion ||
      !j.contains("tenants") || !j["tenants"].is_array())
    return Invalid(path + " is damaged or of another version");
  for (const nlohmann::json& t : j["tenants"]) {
    Result<TenantRecord> record = RecordFromJson(t);
    if (!record.ok()) return Invalid(path + " is damaged: " + record.error().message);
    state.tenants.push_back(std::move(*record));
  }
  if (j.contains("learned")) state.learned = j["learned"];
  if (const auto it = j.find("cordons"); it != j.end() && it->is_object())
    for (const auto& [uuid, why] : it->items())
      if (why.is_string() && !why.get_ref<const std::string&>().empty()) state.cordons[uuid] = why;
  return state;
}

std::string RecordText(const TenantRecord& record) {
  return ToJson(record).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Status SaveStateFile(const std::string& path, const std::vector<const std::string*>& tenants,
                     const nlohmann::json& learned, bool private_daemon,
                     const std::map<std::string, std::string>& cordons) {
  std::string text =
      "{\"version\":" + std::to_string(kVersion) +
      ",\n\"private\":" + (private_daemon ? "true" : "false") +
      ",\n\"learned\":" + learned.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
      ",\n\"cordons\":" +
      nlohmann::json(cordons).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
      ",\n\"tenants\":[";
  for (const std::string* const& tenant : tenants)
    text += (&tenant == &tenants[0] ? "\n" : ",\n") + *tenant;
  return WriteByRename(path, text + "\n]}\n");
}

}  // namespace divvy::daemon
