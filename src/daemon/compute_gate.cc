#include "src/daemon/compute_gate.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace divvy::daemon {
namespace {
uint32_t Micros(arbiter::Nanos t) {
  return static_cast<uint32_t>(std::chrono::duration_cast<std::chrono::microseconds>(t).count());
}
}  // namespace

GateSetting SettingFor(const GateInputs& in, const arbiter::Tunables& tunables) {
  using arbiter::GateMode;
  if (in.free && !in.paused && !in.recording) return {};
  GateMode mode = in.mode;
  // Under the lone bound a capped tenant would overshoot by most of a window.
  if (mode == GateMode::kLone && in.capped) mode = GateMode::kBound;
  GateSetting out{.bound_us = Micros(tunables.Bound(mode)),
                  .space_us = Micros(tunables.Space(mode))};
  if (mode == GateMode::kShut) out.bound_us = Micros(tunables.Bound(GateMode::kBound));
  const bool fast = mode == GateMode::kLone && in.active && !in.bell && !in.paused && !in.recording;
  if (fast) return out;
  out.bits = region::kGateMetered;
  if (mode == GateMode::kShut) out.bits |= region::kGateShut;
  if (in.paused) out.bits |= region::kGateShut | region::kGatePaused;
  if (in.recording) out.bits |= region::kGateEachOp;
  if (in.bell) out.bits |= region::kGateBell;
  return out;
}

GateWriter::GateWriter(region::PolicyGate& gate, uint32_t patience_us, arbiter::Nanos switch_cost)
    : gate_(gate) {
  gate.patience_us = patience_us;
  gate.switch_ns = static_cast<uint32_t>(switch_cost.count());
}

void GateWriter::Company(arbiter::Nanos at) {
  gate_.company_ns.store(static_cast<uint64_t>(at.count()), std::memory_order_relaxed);
}

bool GateWriter::Write(const GateSetting& setting, uint64_t windows) {
  if (setting == setting_) return false;
  setting_ = setting;
  gate_.bound_us.store(setting.bound_us, std::memory_order_relaxed);
  gate_.space_us.store(setting.space_us, std::memory_order_relaxed);
  gate_.grant.store(static_cast<uint32_t>(windows), std::memory_order_relaxed);
  sequence_ += region::kGateSequence;  // wraps; a waiter sleeps through far fewer changes
  // Release: whoever reads the word (acquire, in the shim) sees the figures that go with it.
  gate_.word.store(setting.bits == 0 ? 0 : setting.bits | sequence_, std::memory_order_release);
  ::syscall(SYS_futex, reinterpret_cast<uint32_t*>(&gate_.word), FUTEX_WAKE, INT_MAX, nullptr,
            nullptr, 0);
  return true;
}

}  // namespace divvy::daemon
