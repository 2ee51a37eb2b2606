#include "src/cli/verify/mix_run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "src/base/clock.h"
#include "src/base/paths.h"
#include "src/base/unique_fd.h"
#include "src/cli/machines.h"
#include "src/cli/process/supervise.h"

namespace divvy::cli {
namespace {

using nlohmann::json;
constexpr double kStartWithinS = 30, kEndWithinS = 20;

std::string Micros(double us) { return std::to_string(static_cast<int64_t>(us * 1000)) + "ns"; }
std::string Number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", x);
  return text;
}

// 0 if there are none.
double Percentile(std::vector<double>& all, double q) {
  if (all.empty()) return 0;
  const auto at = all.begin() + std::lround(q * static_cast<double>(all.size() - 1));
  std::nth_element(all.begin(), at, all.end());
  return *at;
}

// `divvy load ...`: the GPU's times are the device's own, the host's are the dilated ones.
std::vector<std::string> LoadCommand(const CaseTenant& t, const MixMachine& machine,
                                     const std::string& meeting,
                                     const std::vector<unsigned>& ordinals) {
  std::vector<std::string> c{paths::BinDir() + "/divvy", "load"};
  const auto add = [&](const char* name, const std::string& value) {
    c.push_back(name);
    c.push_back(value);
  };
  if (t.kernel_us > 0) add("--kernel", Micros(t.kernel_us));
  if (t.graph_us > 0) add("--graph", Micros(t.graph_us));
  if (t.vary > 1) add("--vary", Number(t.vary));
  if (t.meets >= 0) add("--meet", meeting + "," + std::to_string(t.meets));
  if (t.copy_mib > 0) add("--copy", std::to_string(t.copy_mib) + "MiB");
  if (t.event) c.push_back("--event");
  if (t.cooperative) c.push_back("--cooperative");
  add("--stream", t.stream);
  add("--sync-every", std::to_string(t.sync_every));
  if (t.think_us > 0) add("--think", Micros(t.think_us * machine.dilation));
  if (t.rate > 0) {
    add("--rate", Number(t.rate / machine.dilation));
    c.push_back("--poisson");
  }
  add("--device", std::to_string(ordinals.at(0)));
  if (ordinals.size() > 1) {
    std::string list;
    for (const unsigned o : ordinals) list += (list.empty() ? "" : ",") + std::to_string(o);
    add("--devices", list);
    add("--several", t.several);
  }
  c.push_back("--on-word");
  add("--for", "600s");
  add("--every", "20ms");
  add("-o", "json");
  return c;
}

class Worker {
 public:
  Worker(const CaseTenant& tenant) : tenant_(tenant) {}
  ~Worker() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    Reap(pid_);
  }

  Status Start(const MixMachine& machine, const MixPlan& plan) {
    std::vector<unsigned> devices;
    for (const unsigned d : tenant_.devices) devices.push_back(plan.devices.at(d));
    std::vector<unsigned> ordinals = devices;  // without a share every device is seen
    std::vector<std::string> command;
    if (plan.shared) {
      std::string gpus;
      for (size_t i = 0; i < devices.size(); ++i) {
        ordinals[i] = static_cast<unsigned>(i);
        gpus += (gpus.empty() ? "" : ",") + std::to_string(devices[i]);
      }
      command = {
          paths::BinDir() + "/divvy",      "run",     "--gpu",    gpus, "--mem", "1GiB", "--name",
          plan.label + "-" + tenant_.name, "--class", tenant_.cls};
      if (!machine.sim.empty()) command.insert(command.end(), {"--sim", machine.sim});
      if (tenant_.percent > 0)
        command.insert(command.end(), {"--compute", Number(tenant_.percent)});
      if (tenant_.max_percent < 100)
        command.insert(command.end(), {"--compute-max", Number(tenant_.max_percent)});
      command.push_back("--");
    }
    for (std::string& word : LoadCommand(tenant_, machine, plan.meeting, ordinals))
      command.push_back(std::move(word));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return IoError("pipe", errno);
    out_ = UniqueFd(ends[0]);
    const UniqueFd in(ends[1]);
    if (::pipe2(ends, O_CLOEXEC) != 0) return IoError("pipe", errno);
    const UniqueFd word(ends[0]);
    word_ = UniqueFd(ends[1]);
    const Result<pid_t> child = Launch(command, [&]() -> Status {
      if (::dup2(word.get(), 0) < 0 || ::dup2(in.get(), 1) < 0 || ::dup2(in.get(), 2) < 0)
        return IoError("dup2", errno);
      if (!plan.shared && !machine.sim.empty()) {
        ::setenv("LD_LIBRARY_PATH", paths::SimLibDir().c_str(), 1);
        ::setenv("DIVVY_SIM_DIR", machine.sim_dir.c_str(), 1);
      }
      return {};
    });
    if (!child.ok()) return child.error();
    pid_ = *child;
    return {};
  }

  int fd() const { return out_.get(); }
  bool ready() const { return text_.rfind("ready\n", 0) == 0; }
  bool began() const { return text_.find("\"now_ns\"") != std::string::npos; }
  void Go() const {
    if (::write(word_.get(), "\n", 1) != 1) ::kill(pid_, SIGKILL);
  }
  bool ended() const { return !out_.valid(); }
  void Read() {
    char buffer[65536];
    const ssize_t n = ::read(out_.get(), buffer, sizeof buffer);
    if (n > 0) {
      text_.append(buffer, static_cast<size_t>(n));
    } else if (n == 0 || errno != EINTR) {
      out_.reset();
    }
  }
  void Signal(int signal) const { ::kill(pid_, signal); }
  std::string Said() const {
    std::string line = text_.substr(0, text_.find('\n'));
    return line.empty() ? "a load ended without a word" : line;
  }

  MixResult Measure(double from_s, double to_s, double dilation) const {
    MixResult out;
    double before = 0, after = 0, last_time = 0, last_done = 0;
    std::vector<double> requests_us;
    for (size_t at = 0; at < text_.size();) {
      const size_t end = std::min(text_.find('\n', at), text_.size());
      const json line = json::parse(text_.substr(at, end - at), nullptr, false);
      at = end + 1;
      if (!line.is_object()) continue;
      if (!line.contains("now_ns")) continue;
      const double time = line.value("now_ns", 0.0) / 1e9, done = line.value("done", 0.0);
      if (from_s <= time && time < to_s) {
        out.copied_gbps += line.value("copied_bytes", 0.0) / 1e9 / (to_s - from_s);
        for (const json& us : line.value("requests_us", json::array()))
          requests_us.push_back(us.get<double>());
      }
      // Between two lines it went on evenly.
      const auto value_at = [&](double t) {
        return time <= last_time
                   ? done
                   : last_done + (done - last_done) * (t - last_time) / (time - last_time);
      };
      if (last_time <= from_s && from_s < time) before = value_at(from_s);
      if (last_time <= to_s && to_s < time) after = value_at(to_s);
      last_time = time;
      last_done = done;
    }
    if (after < before) after = last_done;
    out.latency_p50_us = Percentile(requests_us, 0.5);
    out.latency_p99_us = Percentile(requests_us, 0.99);
    out.requests = requests_us.size();
    out.gpu_percent = 100 * (after - before) * tenant_.OperationUs() / 1e6 * dilation /
                      (to_s - from_s) / static_cast<double>(tenant_.devices.size());
    return out;
  }

 private:
  const CaseTenant& tenant_;
  pid_t pid_ = 0;
  UniqueFd out_, word_;
  std::string text_;
};

// Where the tenants of a run that wait for each other find each other.
class MeetingFile {
 public:
  static Result<std::unique_ptr<MeetingFile>> Make() {
    char path[] = "/tmp/divvy-meet-XXXXXX";
    const UniqueFd fd(::mkostemp(path, O_CLOEXEC));
    if (!fd.valid()) return IoError("cannot make a file in /tmp", errno);
    return std::unique_ptr<MeetingFile>(new MeetingFile(path));
  }
  ~MeetingFile() { ::unlink(path_.c_str()); }
  MeetingFile(const MeetingFile&) = delete;
  MeetingFile& operator=(const MeetingFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit MeetingFile(const char* path) : path_(path) {}
  std::string path_;
};

using Workers = std::vector<std::unique_ptr<Worker>>;

// Reads what they say until `until_s`, or until `enough`.
template <typename Enough>
bool Listen(const Workers& workers, double until_s, Enough enough) {
  while (!enough()) {
    const double left = until_s - NowS();
    if (left <= 0) return false;
    std::vector<pollfd> fds;
    std::vector<Worker*> who;
    for (const auto& w : workers) {
      if (w->ended()) continue;
      fds.push_back({w->fd(), POLLIN, 0});
      who.push_back(w.get());
    }
    ::poll(fds.data(), fds.size(), static_cast<int>(std::min(left * 1000 + 1, 100.0)));
    for (size_t i = 0; i < fds.size(); ++i)
      if (fds[i].revents != 0) who[i]->Read();
  }
  return true;
}

// Shares end a moment after their processes: the next ones would not be admitted beside them.
Status AwaitEnd(const MixMachine& machine, const std::vector<MixPlan>& plans) {
  const Machine daemon = MachineOf(machine.sim);
  for (const double until = NowS() + kEndWithinS; NowS() < until; ::usleep(20'000)) {
    const auto tenants = daemon.api.Get("/v1/tenants");
    if (!tenants.ok()) return {};  // it has ended with its last tenant
    bool any = false;
    for (const json& t : tenants->value("tenants", json::array()))
      for (const MixPlan& plan : plans)
        any = any || (plan.shared && t.value("name", "").rfind(plan.label + "-", 0) == 0);
    if (!any) return {};
  }
  return Unavailable("a share did not end within 20 s; `divvy ps -p` shows it");
}

}  // namespace

Result<std::vector<std::vector<MixResult>>> RunMixes(const MixMachine& machine,
                                                     std::vector<MixPlan> plans, double warm_s,
                                                     double measure_s) {
  std::vector<std::unique_ptr<MeetingFile>> meetings;
  for (MixPlan& plan : plans) {
    if (std::none_of(plan.tenants->begin(), plan.tenants->end(),
                     [](const CaseTenant& t) { return t.meets >= 0; }))
      continue;
    auto file = MeetingFile::Make();
    if (!file.ok()) return file.error();
    plan.meeting = (*file)->path();
    meetings.push_back(std::move(*file));
  }
  Workers workers;
  for (const MixPlan& plan : plans) {
    for (const CaseTenant& tenant : *plan.tenants) {
      workers.push_back(std::make_unique<Worker>(tenant));
      if (const Status s = workers.back()->Start(machine, plan); !s.ok()) return s.error();
    }
  }
  // Nobody begins before all have their shares: a tenant that has a device to itself runs ahead as
  // far as the driver's queue lets it.
  const Worker* lost = nullptr;
  const auto all = [&](bool (Worker::*so)() const) {
    return Listen(workers, NowS() + kStartWithinS, [&] {
      for (const auto& w : workers)
        if (w->ended()) lost = w.get();
      return lost != nullptr || std::all_of(workers.begin(), workers.end(),
                                            [so](const auto& w) { return ((*w).*so)(); });
    });
  };
  bool good = all(&Worker::ready);
  for (const auto& w : workers)
    if (good && lost == nullptr) w->Go();
  good = good && lost == nullptr && all(&Worker::began);
  if (lost != nullptr) return Unavailable(lost->Said());
  if (!good) return Unavailable("a load did not begin within 30 s");
  const double from = NowS() + warm_s, to = from + measure_s;
  Listen(workers, to + 0.1, [] { return false; });
  // In order, or at once where seconds of work are queued.
  const auto ended = [&] {
    return std::all_of(workers.begin(), workers.end(), [](const auto& w) { return w->ended(); });
  };
  for (const double within : {0.3, kEndWithinS}) {
    for (const auto& w : workers)
      if (!w->ended()) w->Signal(SIGTERM);
    Listen(workers, NowS() + within, ended);
  }
  if (const Status s = AwaitEnd(machine, plans); !s.ok()) return s.error();
  std::vector<std::vector<MixResult>> out;
  size_t next = 0;
  for (const MixPlan& plan : plans) {
    out.emplace_back();
    for (size_t i = 0; i < plan.tenants->size(); ++i)
      out.back().push_back(workers[next++]->Measure(from, to, machine.dilation));
  }
  return out;
}

}  // namespace divvy::cli
