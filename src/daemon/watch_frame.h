// The figures of one moment as JSON, in the names of /v1/devices and /v1/tenants: what a watcher
// gets. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "src/daemon/events.h"
#include "src/daemon/figures.h"

namespace divvy::daemon {

nlohmann::json SnapshotJson(const Figures& figures);
nlohmann::json EventJson(const Event& event);
// As one frame of text/event-stream; `id`: an event's number, 0 = none.
std::string Frame(const char* type, uint64_t id, const nlohmann::json& data);

}  // namespace divvy::daemon
