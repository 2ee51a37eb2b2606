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

TEST(KubeJson, Errors) {
  const auto error = [](const std::string& text) {
    Inventory i;
    const Status s = ReadKubeNodes(text, "n.json", &i);
    return s ? std::string() : s.error().message;
  };
  EXPECT_EQ(error("{\"items\":[\n{\"meta"), "n.json:2: not JSON, or cut off");
  EXPECT_EQ(error("{}"), "n.json: no list \"items\" (kubectl get ... -o json)");
  EXPECT_EQ(error("{\"items\":[{}]}"), "n.json: item 1: a node without a name");
  EXPECT_EQ(error(R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":"4x"}}}]})"),
            "n.json: item 1: cpu: \"4x\" is not a quantity");
  EXPECT_EQ(error(R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"cpu":-1}}}]})"),
            "n.json: item 1: cpu: \"-1\" is not a quantity");
  EXPECT_EQ(
      error(
          R"({"items":[{"metadata":{"name":"n"},"status":{"allocatable":{"nvidia.com/gpu":64}}}]})"),
      "n.json: item 1: more than 32 GPUs");
  EXPECT_EQ(error(R"({"items":[{"metadata":{"name":"n"}},{"metadata":{"name":"n"}}]})"),
            "n.json: item 2: node n stands twice");
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
