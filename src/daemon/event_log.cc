#include "src/daemon/event_log.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace divvy::daemon {
namespace {

int Priority(Severity severity) {  // as syslog has them
  switch (severity) {
    case Severity::kInfo:
      return 6;
    case Severity::kNotice:
      return 5;
    case Severity::kWarning:
      return 4;
    case Severity::kError:
      return 3;
  }
  return 3;
}

void Field(std::string& out, const char* key, const std::string& value) {
  if (value.empty()) return;
  out += key;
  if (value.find('\n') == std::string::npos) {
    out += "=" + value + "\n";
    return;
  }
  out += "\n";
  uint64_t size = value.size();  // little-endian, 8 bytes
  for (int i = 0; i < 8; ++i, size >>= 8) out += static_cast<char>(size & 0xff);
  out += value + "\n";
}

void Field(std::string& out, const char* key, uint64_t value) {
  if (value != 0) Field(out, key, std::to_string(value));
}

}  // namespace

std::string EventLine(const Event& e) {
  std::string line = e.kind + " " + e.cause;
  if (!e.tenant.empty()) line += " tenant=" + e.tenant;
  if (e.pid != 0) line += " pid=" + std::to_string(e.pid);
  if (!e.command.empty()) line += " (" + e.command + ")";
  if (!e.device.empty()) line += " device=" + e.device;
  if (e.bytes != 0) line += " bytes=" + std::to_string(e.bytes);
  if (!e.call.empty()) line += " call=" + e.call;
  line += ": " + e.message;
  for (char& c : line)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  return line;
}

std::string JournalEntry(const Event& e) {
  std::string out;
  std::string message = e.tenant.empty() ? "" : e.tenant + ": ";
  message += e.message.empty() ? e.cause : e.message;
  Field(out, "MESSAGE", message);
  Field(out, "PRIORITY", std::to_string(Priority(e.severity)));
  Field(out, "SYSLOG_IDENTIFIER", "divvyd");
  Field(out, "DIVVY_SEQ", e.sequence);
  Field(out, "DIVVY_KIND", e.kind);
  Field(out, "DIVVY_CAUSE", e.cause);
  Field(out, "DIVVY_TENANT", e.tenant);
  Field(out, "DIVVY_PID", static_cast<uint64_t>(e.pid));
  Field(out, "DIVVY_COMMAND", e.command);
  Field(out, "DIVVY_DEVICE", e.device);
  Field(out, "DIVVY_BYTES", e.bytes);
  Field(out, "DIVVY_LIMIT_BYTES", e.limit_bytes);
  Field(out, "DIVVY_CALL", e.call);
  Field(out, "DIVVY_SUPPRESSED", e.suppressed);
  return out;
}

EventLog::EventLog(std::string journal) : journal_(std::move(journal)) {
  if (journal_.empty() || ::access(journal_.c_str(), W_OK) != 0) return;
  socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // A service whose output is the journal's already would tell everything twice.
  text_ = !socket_.valid() || std::getenv("JOURNAL_STREAM") == nullptr;
}

void EventLog::Write(const Event& event) {
  if (text_) {
    const auto level = event.severity == Severity::kError     ? spdlog::level::err
                       : event.severity == Severity::kWarning ? spdlog::level::warn
                                                              : spdlog::level::info;
    spdlog::log(level, "{}", EventLine(event));
  }
  if (!socket_.valid()) return;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (journal_.size() >= sizeof to.sun_path) return;
  std::memcpy(to.sun_path, journal_.c_str(), journal_.size());
  const std::string entry = JournalEntry(event);
  if (::sendto(socket_.get(), entry.data(), entry.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to), sizeof to) < 0)
    ++dropped_;
}

}  // namespace divvy::daemon
