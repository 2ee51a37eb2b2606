// The one small file that lets a new daemon take over: tenants, their shares and processes, learned
// figures. Written whole, beside, and renamed; so it is always either the old or the new one.
//
// Threads: one at a time. kIo / kDenied when the folder is full or read-only.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "src/base/result.h"
#include "src/daemon/request.h"

namespace divvy::daemon {

struct State {
  std::vector<TenantRecord> tenants;
  nlohmann::json learned = nlohmann::json::object();
  std::map<std::string, std::string> cordons;  // by UUID: why
};

// An absent file is an empty state. kInvalid: the file is not ours or is damaged; what could be
// read is lost, the message names the file.
Result<State> LoadState(const std::string& path);
// `tenants`: each a record as text (RecordText), so that a save costs what changed.
// `private_daemon` is for the CLI: after a crash it starts the next daemon only if this one was its
// own.
Status SaveStateFile(const std::string& path, const std::vector<const std::string*>& tenants,
                     const nlohmann::json& learned, bool private_daemon,
                     const std::map<std::string, std::string>& cordons = {});
std::string RecordText(const TenantRecord& record);
Status WriteByRename(const std::string& path, const std::string& content);

}  // namespace divvy::daemon
