// Mix files: what is read, what is refused and where, and that writing and reading agree.
#include "src/arbiter/model/mix_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "src/arbiter/model/cases.h"

namespace divvy::arbiter::model {
namespace {

std::string With(const std::string& tenant) {
  return R"({"divvy_mix": 1, "tenants": [)" + tenant + "]}";
}
std::string Steps(const std::string& steps) {
  return With(R"({"name": "a", "programs": [[)" + steps + "]]}");
}

TEST(MixFile, ReadsEveryKindOfStep) {
  const auto mix = ParseMix(R"({"divvy_mix": 1, "name": "x", "seconds": 2, // remarks are allowed
    "machine": {"devices": 2, "switch_us": 30},
    "tenants": [
      {"name": "a", "compute_percent": 30, "compute_max_percent": 50, "class": "latency",
       "partner": "b-1", "joins_s": 0.5,
       "programs": [[{"do": "arrive", "us": {"exponential": 5000}},
                     {"do": "kernel", "us": {"mean": 50, "spread": 0.3}, "times": 30, "launch_us": 5},
                     {"do": "graph", "us": {"histogram": [[100, 3], [200, 1]]}, "device": 1},
                     {"do": "copy", "us": {"sequence": [10, 20, 30]}},
                     {"do": "meet", "us": 5}, {"do": "collective", "us": 7}, {"do": "sync"},
                     {"do": "think", "us": 100}]]},
      {"name": "b", "count": 2, "programs": [[{"do": "kernel", "us": 1}]]}]})");
  ASSERT_TRUE(mix.ok()) << mix.error().message;
  EXPECT_EQ(mix->machine.devices, 2u);
  EXPECT_EQ(mix->machine.switch_us, 30);
  ASSERT_EQ(mix->tenants.size(), 3u);
  EXPECT_EQ(mix->tenants[2].name, "b-1");
  EXPECT_EQ(mix->tenants[0].partner, 2);
  EXPECT_DOUBLE_EQ(mix->tenants[0].share.cap, .5);
  EXPECT_EQ(mix->tenants[0].share.cls, TenantClass::kLatency);
  EXPECT_EQ(mix->tenants[0].threads[0].steps.size(), 8u);
  EXPECT_EQ(mix->tenants[0].threads[0].steps[2].device, 1);
}

TEST(MixFile, SaysWhatIsWrongAndWhere) {
  const std::pair<std::string, const char*> cases[] = {
      {"", "not JSON"},
      {"[1]", "JSON object"},
      {"{}", "divvy_mix"},
      {R"({"divvy_mix": 2})", "version 1"},
      {R"({"divvy_mix": 1})", "at least one tenant"},
      {R"({"divvy_mix": 1, "tenant": []})", "unknown field 'tenant'"},
      {With(R"({"name": "a"})"), "tenants[0]: needs programs"},
      {With(R"({"programs": [[{"do": "sync"}]]})"), "tenants[0]: needs a name"},
      {Steps(R"({"do": "kernl", "us": 1})"), "tenants[0].programs[0][0]: unknown step 'kernl'"},
      {Steps(R"({"do": "sync"}, {"do": "kernel"})"), "tenants[0].programs[0][1]: needs us"},
      {Steps(R"({"do": "kernel", "us": -1})"), "must be between"},
      {Steps(R"({"do": "kernel", "us": "5"})"), "must be an object"},
      {Steps(R"({"do": "kernel", "us": {"sequence": []}})"), "empty sequence"},
      {Steps(R"({"do": "kernel", "us": {"histogram": [[1]]}})"), "[microseconds, count]"},
      {Steps(R"({"do": "kernel", "us": 1, "device": 1})"), "device"},
      {Steps(R"({"do": "kernel", "us": 1, "times": 0})"), "times"},
      {With(R"({"name": "a", "class": "fast", "programs": [[{"do": "sync"}]]})"), "not 'fast'"},
      {With(R"({"name": "a", "compute_percent": 101, "programs": [[{"do": "sync"}]]})"),
       "compute_percent"},
      {With(R"({"name": "a", "partner": "z", "programs": [[{"do": "sync"}]]})"), "called 'z'"},
      {With(R"({"name": "a", "count": 257, "programs": [[{"do": "sync"}]]})"), "count"},
      {With(
           R"({"name": "a", "programs": [[{"do": "sync"}]]}, {"name": "a", "programs": [[{"do": "sync"}]]})"),
       "two are called 'a'"},
  };
  for (const auto& [text, what] : cases) {
    const auto mix = ParseMix(text);
    ASSERT_FALSE(mix.ok()) << text;
    EXPECT_EQ(mix.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(mix.error().message, testing::HasSubstr(what)) << text;
  }
  EXPECT_EQ(ReadMixFile("/nonexistent/mix.json").error().code, ErrorCode::kIo);
}

TEST(MixFile, WhatIsWrittenIsReadBackEqual) {
  for (const Mix& mix : StandardCases()) {
    const std::string text = MixToJson(mix);
    const auto back = ParseMix(text);
    ASSERT_TRUE(back.ok()) << mix.name << ": " << back.error().message;
    EXPECT_EQ(MixToJson(*back), text) << mix.name;
  }
}

TEST(MixFile, TheExamplesAreGood) {
  const char* source = std::getenv("DIVVY_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  int read = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(source) + "/docs/mixes")) {
    const auto mix = ReadMixFile(entry.path());
    EXPECT_TRUE(mix.ok()) << mix.error().message;
    ++read;
  }
  EXPECT_GE(read, 3);
}

}  // namespace
}  // namespace divvy::arbiter::model
