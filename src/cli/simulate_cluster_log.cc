// Progress and DecisionLog: see simulate_cluster_log.h.
#include "src/cli/simulate_cluster_log.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "src/cli/simulate_cluster_files.h"

namespace divvy::cli {
namespace {

// As CSV wants it: quoted where it has to be.
std::string Field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + "\"";
}

const char* NameOf(placement::Event::What what) {
  using What = placement::Event::What;
  switch (what) {
    case What::kRuns:
      return "runs";
    case What::kLost:
      return "lost";
    case What::kPlace:
      return "place";
    case What::kRefuse:
      return "refuse";
    case What::kDeny:
      return "deny";
    case What::kLeave:
      return "leave";
    case What::kSqueeze:
      return "resize";
    case What::kMigrate:
      return "migrate";
    case What::kPreempt:
      return "preempt";
  }
  return "";
}

}  // namespace

Progress::Progress(size_t runs) : runs_(runs), on_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  if (on_) std::fputs("\r\033[K", stderr);
}

void Progress::Start(const std::string& what) {
  what_ = what;
  ++started_;
}

void Progress::Show(double part) const {
  if (!on_) return;
  const double done = (static_cast<double>(started_ - 1) + part) / static_cast<double>(runs_);
  const int bars = static_cast<int>(done * 30);
  std::fprintf(stderr, "\r%-28s [%.*s%*s] %3.0f %%\033[K", what_.c_str(), bars,
               "##############################", 30 - bars, "", 100 * done);
  std::fflush(stderr);
}

DecisionLog::DecisionLog(const std::string& path, const placement::Inventory& inventory)
    : path_(path), inventory_(inventory), out_(path, std::ios::binary) {
  out_ << "what,instance,row,pod,node,copy,devices,milli\n";
}

void DecisionLog::Write(const placement::Event& e) {
  using What = placement::Event::What;
  ++written_;
  out_ << NameOf(e.what) << ',';
  if (e.what != What::kLost) {
    if (e.instance >= placement::kFirstRunning) {
      out_ << 'r' << e.instance - placement::kFirstRunning;
    } else {
      out_ << e.instance;
      arrived_ = std::max(arrived_, e.instance + 1);
    }
  }
  out_ << ',' << e.pod + 1 << ',' << Field(inventory_.pods[e.pod].name) << ',';
  const bool located = e.what == What::kRuns || e.what == What::kLost || e.what == What::kPlace ||
                       e.what == What::kMigrate;
  if (located) {
    const size_t nodes = inventory_.nodes.size();
    out_ << Field(inventory_.nodes[e.node % nodes].name) << ',' << e.node / nodes;
  } else {
    out_ << ',';
  }
  out_ << ',';
  bool first = true;
  for (int d = 0; d < placement::kMaxDevices; ++d) {
    if ((e.devices >> d & 1) == 0) continue;
    out_ << (first ? "" : "|") << d;
    first = false;
  }
  out_ << ',';
  if (e.what == What::kRuns || e.what == What::kPlace || e.what == What::kSqueeze) out_ << e.milli;
  out_ << '\n';
  if (!out_ && why_ == 0) why_ = errno;
}

Result<void> DecisionLog::Close() {
  if (why_ == 0) errno = 0;
  out_ << "end," << written_ << ',' << arrived_ << ",,,,,\n";
  out_.close();
  if (!out_) {
    const int why = why_ != 0 ? why_ : errno;
    return Error{ErrorCode::kIo, path_ + ": cannot be written: " + Why(why)};
  }
  return {};
}

}  // namespace divvy::cli
