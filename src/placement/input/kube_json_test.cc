// The Kubernetes snapshot readers.
#include "src/placement/input/kube_json.h"

#include <gtest/gtest.h>

#include <string>

namespace divvy::placement {
namespace {

constexpr char kNodes[] = R"({"kind":"List","items":[
 {"metadata":{"name":"n1","labels":{"nvidia.com/gpu.product":"A100","nvidia.com/gpu.count":"4",
   "nvidia.com/gpu.memory":"81920"}},
  "status":{"allocatable":{"cpu":"63500m","memory":"257Gi","pods":"110","nvidia.com/gpu":"40"},
            "conditions":[{"type":"Ready","status":"True"}]}},
 {"metadata":{"name":"n2"},"spec":{"unschedulable":true},
  "status":{"allocatable":{"cpu":8,"memory":"16777216Ki"}}}]})";

TEST(KubeJson, Nodes) {
  Inventory i;
  const Status s = ReadKubeNodes(kNodes, "n.json", &i);
  ASSERT_TRUE(s) << s.error().message;
  ASSERT_EQ(i.nodes.size(), 2u);
  EXPECT_EQ(i.nodes[0].cpu_milli, 63500);
  EXPECT_EQ(i.nodes[0].memory_mib, 257 * 1024);
  EXPECT_EQ(i.nodes[0].devices, 4);
  EXPECT_EQ(i.nodes[0].device_memory_mib, 81920);
  EXPECT_FALSE(i.closed[0]);
  EXPECT_EQ(i.nodes[1].cpu_milli, 8000);
  EXPECT_EQ(i.nodes[1].devices, 0);
  EXPECT_EQ(i.nodes[1].slots, 110);
  EXPECT_TRUE(i.closed[1]);
}

TEST(KubeJson, Pods) {
  Inventory i;
  ASSERT_TRUE(ReadKubeNodes(kNodes, "n.json", &i));
  const Status s = ReadKubePods(R"({"items":[
   {"metadata":{"name":"a","namespace":"x"},"spec":{"nodeName":"n1","priority":7,"containers":[
     {"resources":{"requests":{"cpu":"1","memory":"1Gi"},"limits":{"nvidia.com/gpu":"1",
      "nvidia.com/gpucores":"30","nvidia.com/gpumem":"20000"}}},
     {"resources":{"requests":{"cpu":"500m"}}}]}},
   {"metadata":{"name":"b","namespace":"y"},"spec":{"nodeSelector":{"nvidia.com/gpu.product":"A100"},
     "containers":[{"resources":{"limits":{"nvidia.com/gpu":2}}}]}},
   {"metadata":{"name":"c"},"spec":{"containers":[
     {"resources":{"limits":{"nvidia.com/gpu":"1","nvidia.com/gpumem-percentage":"50"}}}]}},
   {"metadata":{"name":"d"},"status":{"phase":"Succeeded"},"spec":{}}]})",
                                "p.json", &i);
  ASSERT_TRUE(s) << s.error().message;
  ASSERT_EQ(i.pods.size(), 3u);
  const Request& a = i.pods[0].request;
  EXPECT_EQ(i.pods[0].name, "x/a");
  EXPECT_EQ(i.pods[0].node, "n1");
  EXPECT_EQ(a.priority, 7);
  EXPECT_EQ(a.shape.cpu_milli, 1500);
  EXPECT_EQ(a.shape.compute_milli, 300);
  EXPECT_EQ(a.shape.device_memory_mib, 20000);
  EXPECT_EQ(i.pods[1].request.shape.devices, 2);
  EXPECT_EQ(i.pods[1].request.shape.compute_milli, kWholeMilli);
  EXPECT_EQ(i.pods[1].request.shape.models, 1u);
  EXPECT_EQ(i.pods[2].request.shape.device_memory_mib, 40960);
  EXPECT_EQ(i.spaces, (std::vector<std::string>{"x", "y", "default"}));
}

TEST(KubeJson, AContainerThatWantsWholeGpusGetsWholeOnes) {
  Inventory i;
  const Status s = ReadKubePods(R"({"items":[{"metadata":{"name":"p"},"spec":{"containers":[
    {"resources":{"limits":{"nvidia.com/gpu":1,"nvidia.com/gpucores":50,"nvidia.com/gpumem":1000}}},
    {"resources":{"limits":{"nvidia.com/gpu":2}}},{"resources":{"limits":{"cpu":1}}}]}},
   {"metadata":{"name":"q"},"spec":{"containers":[
    {"resources":{"limits":{"nvidia.com/gpu":1,"nvidia.com/gpumem":1000}}},
    {"resources":{"limits":{"nvidia.com/gpu":1,"nvidia.com/gpucores":20}}},
    {"resources":{"limits":{"cpu":1}}}]}}]})",
                                "p.json", &i);
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ(i.pods[0].request.shape.devices, 3);
  EXPECT_EQ(i.pods[0].request.shape.compute_milli, kWholeMilli);
  EXPECT_EQ(i.pods[1].request.shape.devices, 2);
  EXPECT_EQ(i.pods[1].request.shape.compute_milli, 200);
  EXPECT_EQ(i.pods[1].request.shape.device_memory_mib, 1000);
}

TEST(KubeJson, LimitsTopologyGangsAndAMark) {
  Inventory i;
  const Status nodes = ReadKubeNodes(
      "\xEF\xBB\xBF"
      R"({"items":[{"metadata":{"name":"n",
     "labels":{"divvy/gpu-links":"0.0.1.1"},"annotations":{"divvy/gpu-numa":"0.1.0.1"}},
     "status":{"allocatable":{"cpu":"8","memory":"8Gi","nvidia.com/gpu":"4"}}}]})",
      "n.json", &i);
  ASSERT_TRUE(nodes) << nodes.error().message;
  EXPECT_TRUE(LooksLikeJson("\xEF\xBB\xBF {}"));
  EXPECT_EQ(i.nodes[0].link_group, (std::vector<uint8_t>{0, 0, 1, 1}));
  EXPECT_EQ(i.nodes[0].numa, (std::vector<uint8_t>{0, 1, 0, 1}));
  const Status pods = ReadKubePods(R"({"items":[
   {"metadata":{"name":"a","labels":{"scheduling.x-k8s.io/pod-group":"job"},
     "annotations":{"divvy/link":"require","divvy/min-gpucores":"40"}},
    "spec":{"containers":[{"resources":{"requests":{"memory":"1Gi"},"limits":{"cpu":"3",
      "memory":"2Gi","nvidia.com/gpu":"2","nvidia.com/gpucores":"50"}}}]}},
   {"metadata":{"name":"b","annotations":{"scheduling.k8s.io/group-name":"job"}},"spec":{}}]})",
                                   "p.json", &i);
  ASSERT_TRUE(pods) << pods.error().message;
  const Request& a = i.pods[0].request;
  EXPECT_EQ(a.shape.cpu_milli, 3000);  // limits where there are no requests
  EXPECT_EQ(a.shape.memory_mib, 1024);
  EXPECT_EQ(a.shape.link, Link::kRequire);
  EXPECT_EQ(a.min_compute_milli, 400);
  EXPECT_NE(a.gang, 0u);
  EXPECT_EQ(a.gang, i.pods[1].request.gang);
  Inventory blind = i;
  const Status percent = ReadKubePods(R"({"items":[
   {"metadata":{"name":"c"},"spec":{"containers":[{"resources":{"limits":{"nvidia.com/gpu":"1",
      "nvidia.com/gpumem-percentage":"50"}}}]}}]})",
                                      "p.json", &blind);
  ASSERT_FALSE(percent);
  EXPECT_EQ(percent.error().message,
            "p.json:2: item 1 (c): nvidia.com/gpumem-percentage: no node that it may use says how "
            "much memory its GPUs have (label nvidia.com/gpu.memory)");
}

TEST(KubeJson, Errors) {
  const auto error = [](const std::string& text) {
    Inventory i;
    const Status s = ReadKubeNodes(text, "n.json", &i);
    return s ? std::string() : s.error().message;
  };
  EXPECT_EQ(error("{\"items\":[\n{\"meta"), "n.json:2: not JSON, or cut off");
  EXPECT_EQ(error("{}"), "n.json:1: no list \"items\" (kubectl get ... -o json)");
  EXPECT_EQ(error("{\"items\":[{}]}"), "n.json:1: item 1: a node without a name");
  EXPECT_EQ(error(R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"4x"}}}]})"),
            "n.json:1: item 1 (n): cpu: \"4x\" is not a quantity");
  EXPECT_EQ(error(R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":-1}}}]})"),
            "n.json:1: item 1 (n): cpu: \"-1\" is not a quantity");
  EXPECT_EQ(
      error(
          R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"nvidia.com/gpu":64}}}]})"),
      "n.json:1: item 1 (n): more than 32 GPUs");
  EXPECT_EQ(
      error("{\"kind\":\"items\",\n\"items\":[\n{\"metadata\":{\"name\":\"n\",\"x\":[{}]}},\n\n"
            "{\"metadata\":{\"name\":\"n\"}}]}"),
      "n.json:5: item 2 (n): node n stands twice");
  EXPECT_EQ(error("{\"items\":[]}"), "n.json:1: the list \"items\" has no nodes");
}

TEST(KubeJson, PodsThatNoClusterHasAreRefused) {
  const auto error = [](const std::string& items) {
    Inventory i;
    const Status s = ReadKubePods("{\"items\":[" + items + "]}", "p.json", &i);
    return s ? std::string() : s.error().message;
  };
  const std::string p = R"({"metadata":{"name":"p"},"spec":{}})";
  EXPECT_EQ(error(p + ",\n" + p), "p.json:2: item 2 (p): pod default/p stands twice");
  EXPECT_EQ(error(R"({"metadata":{"name":"q"},"spec":{"containers":[{"resources":
      {"limits":{"nvidia.com/gpu":"500m"}}}]}})"),
            "p.json:1: item 1 (q): nvidia.com/gpu is not a whole number");
}

TEST(KubeJson, Quantities) {
  const auto milli = [](const char* text) { return ParseQuantityMilli(text); };
  EXPECT_EQ(*milli("250m"), 250);
  EXPECT_EQ(*milli("2"), 2000);
  EXPECT_EQ(*milli("1.5"), 1500);
  EXPECT_EQ(*milli("1e3"), 1000000);
  EXPECT_EQ(*milli("1Ki"), 1024000);
  EXPECT_EQ(*milli("100u"), 1);  // rounded up
  for (const char* bad : {"", "m", "-1", "1.2.3", "nan", "inf", "99999999Ei", "1 Gi"}) {
    EXPECT_FALSE(milli(bad)) << bad;
  }
}

}  // namespace
}  // namespace divvy::placement
