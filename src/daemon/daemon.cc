#include "src/daemon/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>

#include "src/base/paths.h"
#include "src/base/sim_spec.h"
#include "src/daemon/broker.h"
#include "src/daemon/locks.h"
#include "src/daemon/log.h"
#include "src/daemon/procfs.h"
#include "src/daemon/socket.h"
#include "src/device/nvml.h"

namespace divvy::daemon {
namespace {
using std::chrono::milliseconds;
constexpr milliseconds kTick{250};  // shims take a heartbeat a second old for a death
// Without tenants: only for events that were held back (refused requests, sick devices).
constexpr milliseconds kQuietTick{10'000};
constexpr uint64_t kPrivateLingerNs = 2'000'000'000;
constexpr uint64_t kHolderEndsNs = 10'000'000'000;
constexpr uint64_t kPrivateFirstNs = 15'000'000'000;  // a private daemon whose first never came
}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::Start(const Options& options) {
  std::unique_ptr<Daemon> d(new Daemon(options));
  Result<std::unique_ptr<Loop>> loop = Loop::Create();
  if (!loop.ok()) return loop.error();
  d->loop_ = std::move(*loop);
  Status s = d->WatchSignals();
  if (s.ok()) s = d->TakeMachine();
  if (s.ok()) d->OpenLog();
  if (s.ok()) s = d->OpenDevices();
  if (s.ok()) s = d->TakeDevices();
  if (!s.ok()) return s.error();
  Daemon* self = d.get();
  d->node_ = std::make_unique<Node>(options.node, *d->source_, *d->loop_, d->events_,
                                    [self](bool has_tenants) { self->OnChange(has_tenants); });
  d->SetTimer(options.private_daemon);
  if (s = d->node_->Start(); !s.ok()) return s.error();
  Result<std::unique_ptr<Api>> api =
      Api::Start({.socket_path = paths::ApiSocket(options.node.machine_dir),
                  .tcp = options.api_tcp,
                  .token_file = options.api_token_file,
                  .tls = options.api_tls,
                  .hami_metrics = options.hami_metrics,
                  .log_dropped =
                      [self] {
                        return self->log_->dropped() +
                               (self->log_lines_ != nullptr ? self->log_lines_->dropped() : 0);
                      }},
                 *d->node_, d->events_, d->history_, [self] { self->loop_->Stop(); });
  if (!api.ok()) return api.error();
  d->api_ = std::move(*api);
  d->sampler_ = std::thread([self] { self->SampleForever(); });
  if (d->source_->WatchFaults()) d->WatchFaults();
  d->empty_since_ns_ = MonotonicNs();
  return d;
}

Daemon::~Daemon() {
  api_.reset();  // no request from here on
  {
    const std::lock_guard lock(sampler_mutex_);
    stopping_ = true;
  }
  sampler_wake_.notify_all();
  if (sampler_.joinable()) sampler_.join();
  {
    const std::lock_guard lock(fault_watch_->mutex);
    fault_watch_->node = nullptr;
  }
  if (node_ != nullptr)
    if (Status s = node_->SaveIfDirty(); !s.ok()) spdlog::warn("{}", s.error().message);
  if (machine_lock_.valid()) {
    ::unlink(paths::ApiSocket(options_.node.machine_dir).c_str());
    ::unlink((options_.node.machine_dir + "/divvyd.pid").c_str());
  }
}

Status Daemon::TakeMachine() {
  if (options_.sim_profile.empty() && !InInitialPidNamespace())
    return Unavailable(
        "divvyd must see the host's pids, as NVML does: run it outside of the container, or with "
        "--pid=host (docker) or hostPID: true (Kubernetes)");
  if (!options_.sim_profile.empty())
    if (const auto spec = ParseSimSpec(options_.sim_profile); !spec.ok()) return spec.error();
  const std::string& dir = options_.node.machine_dir;
  if (Status s = paths::MakeRuntimeDir(dir); !s.ok()) return s;
  const auto take = [&dir] {
    return TakeLock(dir + "/divvyd.lock", "pid " + std::to_string(::getpid()),
                    "another divvyd serves " + dir + " already, use it (divvy ps): ", 0600);
  };
  // A holder that nobody can reach is starting or ending: then the lock is soon free, or it
  // answers.
  const uint64_t until = MonotonicNs() + kHolderEndsNs;
  Result<UniqueFd> lock = take();
  while (!lock.ok() && lock.error().code == ErrorCode::kExists && MonotonicNs() < until &&
         !CanConnect(paths::ApiSocket(dir), SOCK_STREAM)) {
    std::this_thread::sleep_for(milliseconds(10));
    lock = take();
  }
  if (!lock.ok()) return lock.error();
  machine_lock_ = std::move(*lock);
  rlimit files{};  // four descriptors per tenant, two per process
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  const UniqueFd pid(::open((dir + "/divvyd.pid").c_str(),
                            O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
  const std::string text = std::to_string(::getpid()) + "\n";
  if (!pid.valid() || ::write(pid.get(), text.data(), text.size()) < 0)
    return IoError("cannot write " + dir + "/divvyd.pid", errno);
  return {};
}

void Daemon::OpenLog() {
  log_lines_ =
      daemon::OpenLog(options_.foreground ? "" : options_.node.machine_dir + "/divvyd.log");
  log_ = std::make_unique<EventLog>(options_.journal);
  events_.WriteTo([log = log_.get()](const Event& event) { log->Write(event); });
}

Status Daemon::OpenDevices() {
  if (options_.sim_profile.empty()) return OpenNvml("libnvidia-ml.so.1");
  const std::string machine = paths::SimDir(options_.node.machine_dir);
  if (Status s = paths::MakeRuntimeDir(machine); !s.ok()) return s;
  ::setenv("DIVVY_SIM_DIR", machine.c_str(), 1);
  // A broker that was idle for its linger time may end between its first answer and our use of it.
  Status opened;
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (Status s = EnsureBroker(machine, options_.sim_profile); !s.ok()) return s;
    opened = OpenNvml(paths::SimLibDir() + "/libnvidia-ml.so.1");
    if (opened.ok()) break;
    std::this_thread::sleep_for(milliseconds(50));
  }
  return opened;
}

Status Daemon::OpenNvml(const std::string& library) {
  Result<std::unique_ptr<device::Source>> source = device::OpenNvml(library);
  if (!source.ok()) return source.error();
  source_ = std::move(*source);
  return {};
}

Status Daemon::TakeDevices() {
  std::string dir;
  if (options_.sim_profile.empty()) {
    Result<std::string> found = DeviceLockDir();
    if (!found.ok()) return found.error();
    dir = *found;
  } else {
    dir = paths::SimDir(options_.node.machine_dir) + "/locks";  // the simulated machine's own
    if (::mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST)
      return IoError("cannot create " + dir, errno);
  }
  for (const device::Info& info : source_->devices()) {
    const std::string& machine = options_.node.machine_dir;
    Result<UniqueFd> lock =
        TakeLock(dir + "/" + device::ToString(info.uuid) + ".lock",
                 "divvyd pid " + std::to_string(::getpid()) + " in " + machine +
                     "; to join it: DIVVY_RUNTIME_DIR=" + options_.runtime_dir + " divvy run ...",
                 "GPU " + std::to_string(info.index) + " is shared out by another ", 0666);
    if (!lock.ok()) return lock.error();
    device_locks_.push_back(std::move(*lock));
  }
  return {};
}

Status Daemon::WatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  signals_ = UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_.valid()) return IoError("cannot watch signals", errno);
  signals_watch_ = loop_->Add(signals_.get(), [this] {
    signalfd_siginfo info;
    while (::read(signals_.get(), &info, sizeof info) > 0)
      if (info.ssi_signo != SIGHUP || options_.foreground) loop_->Stop();
  });
  return signals_watch_ != 0 ? Status() : Internal("cannot watch signals");
}

void Daemon::OnChange(bool has_tenants) {
  if (has_tenants) had_tenants_ = true;  // also one that is gone again before the next tick
  if (!options_.private_daemon) SetTimer(has_tenants);
  const std::lock_guard lock(sampler_mutex_);
  sampler_kicked_ = true;
  sampler_wake_.notify_all();
}

void Daemon::SetTimer(bool ticks) {
  if (ticks)
    loop_->SetTimer(kTick, [this] { OnTick(); });
  else
    loop_->SetTimer(kQuietTick, [this] {
      events_.Flush(WallClock());
      manager_.Alive(MonotonicNs());
    });
}

void Daemon::OnTick() {
  manager_.Alive(MonotonicNs());
  node_->Tick();
  events_.Flush(WallClock());
  if (history_.Due(WallClock())) history_.Add(node_->CollectUse());
  if (Status s = node_->SaveIfDirty(); !s.ok()) spdlog::warn("{}", s.error().message);
  if (!options_.private_daemon) return;
  const uint64_t now = MonotonicNs();
  if (node_->HasTenants()) {
    empty_since_ns_ = 0;
    had_tenants_ = true;
  } else if (empty_since_ns_ == 0) {
    empty_since_ns_ = now;
  } else if (now - empty_since_ns_ > (had_tenants_ ? kPrivateLingerNs : kPrivateFirstNs) &&
             node_->CloseIfEmpty()) {
    spdlog::info("the last tenant has ended");
    loop_->Stop();
  }
}

void Daemon::SampleForever() {
  for (;;) {
    const Node::Plan plan = node_->SamplePlan();
    for (const unsigned device : plan.devices) node_->Sample(device);
    std::unique_lock lock(sampler_mutex_);
    const auto kicked = [this] { return sampler_kicked_ || stopping_; };
    if (plan.next.count() == 0) {
      sampler_wake_.wait(lock, kicked);
    } else {
      // A kick only shortens the pause: a storm of forks must not become a storm of readings.
      const auto soonest = std::chrono::steady_clock::now() + milliseconds(50);
      if (sampler_wake_.wait_for(lock, plan.next, kicked))
        sampler_wake_.wait_until(lock, soonest, [this] { return stopping_; });
    }
    sampler_kicked_ = false;
    if (stopping_) return;
  }
}

void Daemon::WatchFaults() {
  constexpr milliseconds kWait{1000};  // each end of one wakes the thread
  fault_watch_->node = node_.get();
  std::thread([watch = fault_watch_, source = source_] {
    KernelLog log;
    for (;;) {
      const std::optional<device::Fault> fault = source->WaitFault(kWait);
      const std::lock_guard lock(watch->mutex);
      if (watch->node == nullptr) return;
      if (fault) watch->node->OnFault(*fault, log.Read());
    }
  }).detach();
}

void Daemon::Run() {
  manager_.Tell("READY=1");
  loop_->Run();
  manager_.Tell("STOPPING=1");
}

}  // namespace divvy::daemon
