// JSON bodies of the API: what is taken, what is refused and with which words.
#include "src/daemon/request.h"

#include <gtest/gtest.h>

namespace divvy::daemon {
namespace {

std::string WhyNot(const std::string& body) {
  const Result<TenantRequest> r = ParseTenantRequest(body);
  return r.ok() ? "" : r.error().message;
}

TEST(Request, Whole) {
  const auto r = ParseTenantRequest(R"({"name":"a.b-1","gpus":[1,"GPU-x"],"mem_bytes":2147483648,
    "mem_max_bytes":4294967296,"on_full":{"mode":"wait","wait_ms":30000},"compute_percent":12.5,
    "compute_max_percent":50,"class":"latency","weight":7,"runner_pid":42,"command":["x","y"],
    "cooperative":true,"overcommit":true,"cgroup":"/a"})");
  ASSERT_TRUE(r.ok()) << r.error().message;
  EXPECT_EQ(r->gpus, (std::vector<std::string>{"1", "GPU-x"}));
  EXPECT_EQ(r->share.mem, 2_GiB);
  EXPECT_EQ(r->share.mem_max, 4_GiB);
  EXPECT_EQ(r->share.on_full_wait_ms, 30000u);
  EXPECT_EQ(r->share.compute.milli, 12500u);
  EXPECT_EQ(r->share.share_class, Class::kLatency);
  EXPECT_EQ(r->share.weight, 7u);
  EXPECT_EQ(r->runner_pid, 42);
  EXPECT_TRUE(r->cooperative && r->overcommit);
}

TEST(Request, ClassBatchIsPromisedNothing) {
  EXPECT_NE(WhyNot(R"({"mem_bytes":1,"class":"batch","compute_percent":30})").find("class batch"),
            std::string::npos);
  EXPECT_EQ(WhyNot(R"({"mem_bytes":1,"class":"batch"})"), "");
  const auto guaranteed = ParseTenantRequest(R"({"mem_bytes":1,"compute_percent":30})");
  ASSERT_TRUE(guaranteed.ok());
  const auto batch = ParseTenantPatch(R"({"class":"batch"})");
  const auto both = ParseTenantPatch(R"({"class":"batch","compute_percent":0})");
  const auto refused = Patched(guaranteed->share, *batch);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message.find("compute_percent 0"), std::string::npos);
  ASSERT_TRUE(Patched(guaranteed->share, *both).ok());
  EXPECT_EQ(Patched(guaranteed->share, *both)->compute.milli, 0u);
  // A state file of before: its promise was never kept, the tenant is.
  const auto record = RecordFromJson(nlohmann::json::parse(
      R"({"name":"t","devices":["GPU-a"],"mem_bytes":1,"mem_max_bytes":1,"class":"batch",
          "compute_percent":20})"));
  ASSERT_TRUE(record.ok()) << record.error().message;
  EXPECT_EQ(record->share.compute.milli, 0u);
}

TEST(Request, Defaults) {
  const auto r = ParseTenantRequest(R"({"mem_bytes":1048576})");
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->gpu_count, 1u);
  EXPECT_EQ(r->share.mem_max, 1_MiB);
  EXPECT_EQ(r->share.compute_max.milli, 100'000u);
  EXPECT_EQ(r->share.on_full_wait_ms, 0u);
}

TEST(Request, RefusalsNameTheField) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not JSON"},
      {"{", "not JSON"},
      {"[]", "not a JSON object"},
      {"{}", "mem_bytes is missing"},
      {R"({"mem_bytes":0})", "mem_bytes must be"},
      {R"({"mem_bytes":-1})", "mem_bytes must be"},
      {R"({"mem_bytes":1.5})", "mem_bytes must be"},
      {R"({"mem_bytes":"2GiB"})", "mem_bytes must be"},
      {R"({"mem_bytes":18446744073709551615})", "mem_bytes must be"},
      {R"({"mem_bytes":99999999999999999999999999})", "mem_bytes must be"},
      {R"({"mem_bytes":1,"mem_byte":1})", "unknown field 'mem_byte'"},
      {R"({"mem_bytes":2,"mem_max_bytes":1})", "mem_max_bytes (1 B) is less"},
      {R"({"mem_bytes":1,"name":"../x"})", "name must be"},
      {R"({"mem_bytes":1,"name":".x"})", "name must be"},
      {R"({"mem_bytes":1,"name":7})", "name must be"},
      {R"({"mem_bytes":1,"gpus":[0],"gpu_count":2})", "not both"},
      {R"({"mem_bytes":1,"gpu_count":0})", "gpu_count must be"},
      {R"({"mem_bytes":1,"gpus":[{}]})", "gpus must be"},
      {R"({"mem_bytes":1,"gpus":"0"})", "gpus must be"},
      {R"({"mem_bytes":1,"compute_percent":0})", "compute_percent must be"},
      {R"({"mem_bytes":1,"compute_percent":-1})", "compute_percent must be"},
      {R"({"mem_bytes":1,"compute_percent":101})", "compute_percent must be"},
      {R"({"mem_bytes":1,"compute_percent":50,"compute_max_percent":40})", "is less than"},
      {R"({"mem_bytes":1,"class":"gold"})", "class must be"},
      {R"({"mem_bytes":1,"on_full":{"mode":"later"}})", "on_full must be"},
      {R"({"mem_bytes":1,"on_full":{"mode":"wait","wait":1}})", "unknown field 'on_full.wait'"},
      {R"({"mem_bytes":1,"on_full":3})", "on_full. is not an object"},
      {R"({"mem_bytes":1,"weight":0})", "weight must be"},
      {R"({"mem_bytes":1,"cooperative":"yes"})", "cooperative must be"},
  };
  for (const auto& [body, why] : cases)
    EXPECT_NE(WhyNot(body).find(why), std::string::npos) << body << " -> " << WhyNot(body);
}

TEST(Request, CommandsAreCutBetweenCharacters) {
  std::string word(199, 'x');
  word += "\u00e9\u00e9";
  const auto r = ParseTenantRequest(nlohmann::json{{"mem_bytes", 1}, {"command", {word}}}.dump());
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(r->command[0], std::string(199, 'x'));
  EXPECT_NO_THROW(nlohmann::json(r->command).dump());
}

TEST(Request, PatchFollowsAndChecks) {
  ShareSpec s;
  s.mem = s.mem_max = 2_GiB;
  const auto smaller = ParseTenantPatch(R"({"mem_bytes":1073741824})");
  ASSERT_TRUE(smaller.ok());
  EXPECT_EQ(Patched(s, *smaller)->mem_max, 1_GiB);  // no lending was asked for: none appears
  s.mem_max = 4_GiB;
  EXPECT_EQ(Patched(s, *smaller)->mem_max, 4_GiB);
  const auto larger = ParseTenantPatch(R"({"mem_bytes":8589934592})");
  EXPECT_EQ(Patched(s, *larger)->mem_max, 8_GiB);
  EXPECT_FALSE(Patched(s, *ParseTenantPatch(R"({"mem_max_bytes":1})")).ok());
  EXPECT_FALSE(ParseTenantPatch("{}").ok());
  s.compute = Percent::Of(30);
  EXPECT_EQ(Patched(s, *ParseTenantPatch(R"({"compute_percent":0})"))->compute.milli, 0u);
  EXPECT_FALSE(ParseTenantPatch(R"({"runner_pid":1})").ok());
}

TEST(Record, RoundTrip) {
  TenantRecord r{.name = "t",
                 .device_uuids = {"GPU-a", "GPU-b"},
                 .runner = {12, 345},
                 .runner_uid = 1000,
                 .cgroup = "/x",
                 .command = {"a", "b"},
                 .cooperative = true,
                 .created = 1.5,
                 .processes = {{13, 346}, {14, 347}}};
  r.share.mem = 3_GiB;
  r.share.mem_max = 5_GiB;
  r.share.compute = Percent::Of(30);
  r.share.weight = 3;
  r.share.on_full_wait_ms = 7;
  r.share.share_class = Class::kLatency;
  const auto back = RecordFromJson(ToJson(r));
  ASSERT_TRUE(back.ok()) << back.error().message;
  EXPECT_EQ(ToJson(*back), ToJson(r));
  EXPECT_EQ(back->processes, r.processes);
  nlohmann::json batch = ToJson(r);
  batch["class"] = "batch";
  EXPECT_EQ(RecordFromJson(batch)->share.compute.milli, 0u);  // what was never kept
  nlohmann::json bad = ToJson(r);
  bad["name"] = "../../etc";
  EXPECT_FALSE(RecordFromJson(bad).ok());
  bad = ToJson(r);
  bad.erase("mem_bytes");
  EXPECT_FALSE(RecordFromJson(bad).ok());
}

}  // namespace
}  // namespace divvy::daemon
