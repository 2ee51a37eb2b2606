#include "src/cli/compute_options.h"

#include <cstdlib>

#include "src/base/percent.h"

namespace divvy::cli {
namespace {

std::string CheckPercent(const std::string& text) {
  const Result<Percent> percent = ParsePercent(text);
  return percent.ok() ? "" : percent.error().message;
}

std::string CheckPromise(const std::string& text) {
  return text == "0" || text == "0%" ? "" : CheckPercent(text);
}

std::string CheckClass(const std::string& text) {
  if (text == "latency" || text == "standard" || text == "batch") return "";
  return "'" + text + "' is not a class: latency, standard or batch";
}

std::string CheckWeight(const std::string& text) {
  char* end = nullptr;
  const long n = std::strtol(text.c_str(), &end, 10);
  if (!text.empty() && *end == '\0' && n >= 1 && n <= 10'000) return "";
  return "'" + text + "' is not a weight: a whole number from 1 to 10000";
}

double PercentOf(const std::string& text) {
  const Result<Percent> percent = ParsePercent(text);
  return percent.ok() ? percent->milli / 1000.0 : 0;
}

}  // namespace

bool ComputeOptions::Any() const {
  return !compute.empty() || !compute_max.empty() || !cls.empty() || !weight.empty();
}

void ComputeOptions::PutInto(nlohmann::json& body) const {
  if (!compute.empty()) body["compute_percent"] = PercentOf(compute);
  if (!compute_max.empty()) body["compute_max_percent"] = PercentOf(compute_max);
  if (!cls.empty()) body["class"] = cls;
  if (!weight.empty()) body["weight"] = std::atoi(weight.c_str());
}

void AddComputeOptions(CLI::App& verb, ComputeOptions& options, bool set) {
  verb.add_option("--compute", options.compute,
                  std::string("percent of each device's compute that it always gets when it wants "
                              "it") +
                      (set ? "; 0 takes the promise away" : ""))
      ->check(set ? CheckPromise : CheckPercent)
      ->type_name("PERCENT");
  verb.add_option("--compute-max", options.compute_max,
                  "percent that it never exceeds, even on an idle device")
      ->check(CheckPercent)
      ->type_name("PERCENT");
  verb.add_option("--class", options.cls,
                  "latency: served first within its share; standard; batch: what others leave, "
                  "never with --compute")
      ->check(CheckClass)
      ->type_name("CLASS");
  verb.add_option("--weight", options.weight,
                  "for what nobody was promised, relative to the others' (100)")
      ->check(CheckWeight)
      ->type_name("N");
}

}  // namespace divvy::cli
