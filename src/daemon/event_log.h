// Where events are written besides the ring: one line each in the daemon's log, and, with all their
// fields, in journald where it runs (its native protocol: datagrams of KEY=value lines).
//
// Side: the daemon. Never blocks: the log is a LogQueue's, what journald does not take at once is
// dropped and counted.
#pragma once

#include <atomic>
#include <string>

#include "src/base/unique_fd.h"
#include "src/daemon/events.h"

namespace divvy::daemon {

// "refusal out_of_share tenant=web pid=7 (python) ...: message"; no line breaks.
std::string EventLine(const Event& event);
// The datagram: MESSAGE, PRIORITY, SYSLOG_IDENTIFIER and DIVVY_* for each field that is set. Values
// with line breaks are framed by their length.
std::string JournalEntry(const Event& event);

class EventLog {
 public:
  // `journal`: the path of journald's socket; "" = none.
  explicit EventLog(std::string journal);
  void Write(const Event& event);
  bool to_journal() const { return socket_.valid(); }
  uint64_t dropped() const { return dropped_; }  // entries that the journal did not take

 private:
  const std::string journal_;
  UniqueFd socket_;
  bool text_ = true;
  std::atomic<uint64_t> dropped_ = 0;
};

}  // namespace divvy::daemon
