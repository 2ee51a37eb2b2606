// Durations of a mix: constant, lognormal, exponential, a histogram, or a recorded sequence. Each
// becomes a table at set-up, so that drawing one is a load. Deterministic for a seed.
#pragma once

#include <cstdint>
#include <vector>

namespace divvy::arbiter::model {

// xorshift64*: small, fast, good enough for tables of a few thousand entries.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567) { Next(); }
  uint64_t Next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1du;
  }
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  int64_t Below(int64_t n) { return n <= 0 ? 0 : static_cast<int64_t>(Unit() * double(n)); }

 private:
  uint64_t state_;
};

struct Duration {
  enum class Kind : uint8_t { kConstant, kLognormal, kExponential, kHistogram, kSequence };
  struct Bin {
    double us = 0;
    double count = 0;
  };
  Kind kind = Kind::kConstant;
  double mean_us = 0;
  double spread = 0;                // lognormal: standard deviation / mean
  std::vector<Bin> bins;            // histogram
  std::vector<double> sequence_us;  // in order, again and again

  static Duration Constant(double us) { return {Kind::kConstant, us, 0, {}, {}}; }
  static Duration Lognormal(double us, double spread) {
    return {Kind::kLognormal, us, spread, {}, {}};
  }
  static Duration Exponential(double us) { return {Kind::kExponential, us, 0, {}, {}}; }
};

// Draws nanoseconds from a Duration.
class Sampler {
 public:
  explicit Sampler(const Duration& d);
  int64_t Draw(Random& random) {
    if (in_order_) return table_[next_++ % table_.size()];
    if (table_.size() == 1) return table_[0];
    return table_[random.Next() >> 32 & (table_.size() - 1)];
  }
  // The same for everybody who asks with the same number.
  int64_t At(uint64_t n) const { return table_[n % table_.size()]; }
  double mean_ns() const { return mean_; }

 private:
  std::vector<int64_t> table_;  // a power of two unless in_order_
  bool in_order_ = false;
  uint64_t next_ = 0;
  double mean_ = 0;
};

}  // namespace divvy::arbiter::model
