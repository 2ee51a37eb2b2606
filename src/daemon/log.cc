#include "src/daemon/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

namespace divvy::daemon {
namespace {

constexpr size_t kLogBytes = 10 << 20, kOldLogs = 2;

class QueueSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit QueueSink(std::shared_ptr<LogQueue> queue) : queue_(std::move(queue)) {}

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    queue_->Add(std::string(text.data(), text.size()));
  }
  void flush_() override {}

  const std::shared_ptr<LogQueue> queue_;
};

void WriteToStderr(const std::string& line) {
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (n < 0 && errno != EINTR) return;
    if (n > 0) done += static_cast<size_t>(n);
  }
}

std::shared_ptr<LogQueue> QueueTo(const std::string& file) {
  if (file.empty()) return std::make_shared<LogQueue>(WriteToStderr);
  const auto sink =
      std::make_shared<spdlog::sinks::rotating_file_sink_st>(file, kLogBytes, kOldLogs);
  sink->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      "%v", spdlog::pattern_time_type::local, ""));  // lines come formatted
  return std::make_shared<LogQueue>([sink](const std::string& line) {
    try {
      sink->log(spdlog::details::log_msg("divvyd", spdlog::level::info, line));
      sink->flush();
    } catch (const spdlog::spdlog_ex&) {  // a full disk: the daemon goes on without the line
    }
  });
}

}  // namespace

std::shared_ptr<LogQueue> OpenLog(const std::string& file) {
  try {
    auto queue = QueueTo(file);
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("divvyd", std::make_shared<QueueSink>(queue)));
    return queue;
  } catch (const spdlog::spdlog_ex&) {
    spdlog::set_level(spdlog::level::off);
    return nullptr;
  }
}

}  // namespace divvy::daemon
