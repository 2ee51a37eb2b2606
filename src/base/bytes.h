// Bytes: an amount of memory as a type. Header-only arithmetic is free of exceptions and
// allocation, so the shim may use it; parsing and printing live in bytes.cc and stay outside it.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/base/result.h"

namespace divvy {

struct Bytes {
  uint64_t n = 0;

  constexpr auto operator<=>(const Bytes&) const = default;
  constexpr Bytes operator+(Bytes o) const { return {n + o.n}; }
  constexpr Bytes operator-(Bytes o) const { return {n - o.n}; }
  constexpr Bytes& operator+=(Bytes o) {
    n += o.n;
    return *this;
  }
  constexpr Bytes& operator-=(Bytes o) {
    n -= o.n;
    return *this;
  }
  // a - b, not below zero.
  constexpr Bytes Less(Bytes o) const { return {n > o.n ? n - o.n : 0}; }
  // Rounded up to a multiple of `unit` (a power of two).
  constexpr Bytes RoundedUp(uint64_t unit) const { return {(n + unit - 1) & ~(unit - 1)}; }
};

constexpr Bytes operator""_B(unsigned long long n) { return {n}; }
constexpr Bytes operator""_KiB(unsigned long long n) { return {n << 10}; }
constexpr Bytes operator""_MiB(unsigned long long n) { return {n << 20}; }
constexpr Bytes operator""_GiB(unsigned long long n) { return {n << 30}; }

// Reads 4GiB, 512MiB, 2g, 1.5G, 1073741824. Units are binary (g = G = GB = GiB), case does not
// matter, no unit means bytes. Refuses negatives, NaN, overflow and anything left over.
Result<Bytes> ParseBytes(std::string_view text);

// "2 GiB", "1.5 GiB", "512 MiB", "37 B": at most two decimals, exact when it can be.
std::string ToString(Bytes b);

// The texts of amounts that one sentence compares: as ToString, but with more decimals, or in
// bytes, where unlike amounts would read alike.
std::vector<std::string> ToStringsApart(const std::vector<Bytes>& amounts);

}  // namespace divvy
