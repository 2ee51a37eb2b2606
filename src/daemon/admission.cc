#include "src/daemon/admission.h"

#include <algorithm>

namespace divvy::daemon {

Bytes PromisedSum(const DeviceBooks& books) {
  Bytes sum;
  for (const DeviceBooks::Promise& p : books.promises) sum += std::max(p.promised, p.used);
  return sum;
}

Bytes OutsideSum(const DeviceBooks& books) {
  Bytes sum = books.outside_unlisted;
  for (const DeviceBooks::Outside& o : books.outside) sum += o.used;
  return sum;
}

Bytes FreeToPromise(const DeviceBooks& books) {
  return books.total.Less(books.driver).Less(OutsideSum(books)).Less(PromisedSum(books));
}

namespace {

// The device's size is the end of every amount, whatever else is allowed. `what`: what it was asked
// for as.
Status FitsDevice(const DeviceBooks& books, Bytes wanted, const std::string& what) {
  const Bytes room = books.total.Less(books.driver);
  if (wanted <= room) return {};
  const std::vector<std::string> text = ToStringsApart({room, wanted, books.total});
  return NoRoom("GPU " + std::to_string(books.index) + " has " + text[0] + " for shares" +
                (books.driver.n == 0
                     ? std::string()
                     : " (" + text[2] + " less the driver's " + ToString(books.driver) + ")") +
                ", " + text[1] + " were asked for" + what);
}

}  // namespace

Status AdmitMost(const DeviceBooks& books, Bytes most) {
  return FitsDevice(books, most, " as the most that may be used (--mem-max, mem_max_bytes)");
}

Status Admit(const DeviceBooks& books, Bytes wanted, bool overcommit) {
  const std::string where = "GPU " + std::to_string(books.index);
  if (const Status fits = FitsDevice(books, wanted, ""); !fits.ok()) return fits;
  const Bytes free = FreeToPromise(books);
  if (overcommit || wanted <= free) return {};

  std::vector<std::pair<Bytes, std::string>> holders;
  for (const DeviceBooks::Promise& p : books.promises)
    holders.emplace_back(std::max(p.promised, p.used),
                         p.tenant + " " + ToString(std::max(p.promised, p.used)) +
                             (p.used > p.promised ? " (over its share)" : ""));
  for (const DeviceBooks::Outside& o : books.outside)
    holders.emplace_back(o.used,
                         "outside Divvy: pid " + std::to_string(o.pid) +
                             (o.command.empty() ? "" : " (" + o.command.substr(0, 40) + ")") + " " +
                             ToString(o.used));
  if (books.outside_unlisted.n != 0)
    holders.emplace_back(books.outside_unlisted,
                         "outside Divvy " + ToString(books.outside_unlisted));
  if (books.driver.n != 0) holders.emplace_back(books.driver, "driver " + ToString(books.driver));
  std::stable_sort(holders.begin(), holders.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  std::string held;
  constexpr size_t kNamed = 12;
  for (size_t i = 0; i < holders.size() && i < kNamed; ++i)
    held += (i == 0 ? "" : ", ") + holders[i].second;
  if (holders.size() > kNamed)
    held += " and " + std::to_string(holders.size() - kNamed) + " smaller ones";
  const std::vector<std::string> text = ToStringsApart({free, books.total, wanted});
  return NoRoom(where + " has " + text[0] + " of " + text[1] + " left to promise, " + text[2] +
                " were asked for; held by: " + held +
                ". Ask for less, end or shrink a tenant, or say --overcommit");
}

}  // namespace divvy::daemon
