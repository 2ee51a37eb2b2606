// Bad input to the openb readers: one clear error with file and line, or correct work.
#include "src/placement/input/openb_csv.h"

#include <gtest/gtest.h>

#include <string>

#include "src/placement/sim/order.h"

namespace divvy::placement {
namespace {

constexpr char kNodes[] = "sn,cpu_milli,memory_mib,gpu,model\na,1000,100,2,T4\nb,1000,100,0,\n";
constexpr char kPods[] =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\np,10,10,1,500,T4|G2\n";

std::string NodesError(const std::string& text) {
  Inventory i;
  const Status s = ReadOpenbNodes(text, "nodes.csv", &i);
  return s ? "" : s.error().message;
}
std::string PodsError(const std::string& text) {
  Inventory i;
  const Status s = ReadOpenbPods(text, "pods.csv", &i);
  return s ? "" : s.error().message;
}

TEST(OpenbCsv, ReadsNodesAndPods) {
  Inventory i;
  ASSERT_TRUE(ReadOpenbNodes(kNodes, "n", &i));
  ASSERT_TRUE(ReadOpenbPods(kPods, "p", &i));
  ASSERT_EQ(i.nodes.size(), 2u);
  EXPECT_EQ(i.nodes[0].devices, 2);
  EXPECT_EQ(i.TotalMilli(), 2000);
  ASSERT_EQ(i.pods.size(), 1u);
  EXPECT_EQ(i.pods[0].request.shape.compute_milli, 500);
  EXPECT_EQ(i.pods[0].request.shape.models, 0b101u);  // T4, "", G2
  EXPECT_TRUE(CheckInventory(i, "n", "p"));
}

TEST(OpenbCsv, WindowsLineEndsMarkAndQuotes) {
  std::string text = "\xEF\xBB\xBF";
  for (const char c : std::string(kNodes))
    text += c == '\n' ? std::string("\r\n") : std::string(1, c);
  text += "\"c,\"\"x\"\"\",1000,100,1,T4";  // quoted, and no line end at the end
  Inventory i;
  ASSERT_TRUE(ReadOpenbNodes(text, "n", &i));
  ASSERT_EQ(i.nodes.size(), 3u);
  EXPECT_EQ(i.nodes[1].name, "b");
  EXPECT_EQ(i.nodes[2].name, "c,\"x\"");
}

TEST(OpenbCsv, ErrorsNameFileAndLine) {
  EXPECT_EQ(NodesError(""), "nodes.csv:1: the file is empty");
  EXPECT_EQ(NodesError("sn,cpu_milli,memory_mib,model\n"),
            "nodes.csv:1: no column \"gpu\" in the header");
  EXPECT_EQ(NodesError("sn,sn,cpu_milli,memory_mib,gpu,model\n"),
            "nodes.csv:1: column \"sn\" stands twice in the header");
  EXPECT_EQ(NodesError(std::string(kNodes) + "a,1,1,1,T4\n"), "nodes.csv:4: node a stands twice");
  EXPECT_EQ(NodesError(std::string(kNodes) + "c,-1,1,1,T4\n"),
            "nodes.csv:4: cpu_milli is -1, not in 0 to 1000000000");
  EXPECT_EQ(NodesError(std::string(kNodes) + "c,1.5,1,1,T4\n"),
            "nodes.csv:4: cpu_milli is \"1.5\", not a whole number");
  EXPECT_EQ(NodesError(std::string(kNodes) + "c,1,99999999999999999999,1,T4\n"),
            "nodes.csv:4: memory_mib is \"99999999999999999999\", not a whole number");
  EXPECT_EQ(NodesError(std::string(kNodes) + "c,1,1,33,T4\n"),
            "nodes.csv:4: gpu is 33, not in 0 to 32");
  EXPECT_EQ(NodesError(std::string(kNodes) + ",1,1,1,T4\n"), "nodes.csv:4: a node without a name");
  EXPECT_EQ(NodesError(std::string(kNodes) + "c,1,1"),
            "nodes.csv:4: 3 fields instead of 5: is the file cut off?");
  EXPECT_EQ(NodesError(std::string(kNodes) + "\"c,1"), "nodes.csv:4: a quote is never closed");
  EXPECT_EQ(PodsError(std::string(kPods) + "q,1,1,1,1001,\n"),
            "pods.csv:3: gpu_milli is 1001, not in 0 to 1000");
  std::string many(kNodes);
  for (int i = 0; i < 70; ++i)
    many += "x" + std::to_string(i) + ",1,1,1,M" + std::to_string(i) + "\n";
  EXPECT_EQ(NodesError(many), "nodes.csv:66: more than 64 device models");
}

TEST(OpenbCsv, WholeInventoryChecks) {
  Inventory i;
  EXPECT_EQ(NodesError("sn,cpu_milli,memory_mib,gpu,model\n"),
            "nodes.csv:1: the node list has no nodes");
  EXPECT_EQ(PodsError("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"),
            "pods.csv:1: the pod list has no pods");
  ASSERT_TRUE(ReadOpenbNodes("sn,cpu_milli,memory_mib,gpu,model\nb,1000,100,0,\n", "n", &i));
  ASSERT_TRUE(ReadOpenbPods(kPods, "p", &i));
  EXPECT_EQ(CheckInventory(i, "n", "p").error().message, "n:1: no node of the node list has a GPU");
  Inventory m;
  ASSERT_TRUE(ReadOpenbNodes(kNodes, "n", &m));
  ASSERT_TRUE(ReadOpenbPods(
      "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_memory_mib\np,1,1,1,500,1000\n", "p", &m));
  EXPECT_FALSE(CheckInventory(m, "n", "p"));
}

TEST(OpenbCsv, ColumnsOfOurOwn) {
  Inventory i;
  ASSERT_TRUE(
      ReadOpenbNodes("sn,cpu_milli,memory_mib,gpu,model,numa,link_group,cordoned\n"
                     "a,1000,100,4,T4,0|0|1|1,0|1|0|1,\nb,1000,100,2,T4,,,1\n",
                     "n", &i));
  EXPECT_EQ(i.nodes[0].numa, (std::vector<uint8_t>{0, 0, 1, 1}));
  EXPECT_EQ(i.nodes[0].link_group, (std::vector<uint8_t>{0, 1, 0, 1}));
  EXPECT_TRUE(i.nodes[1].numa.empty());
  EXPECT_EQ(i.closed, (std::vector<bool>{false, true}));
  ASSERT_TRUE(ReadOpenbPods(
      "name,cpu_milli,memory_mib,num_gpu,gpu_milli,link,namespace,priority,min_gpu_milli,gang,"
      "node\n"
      "p,1,1,2,1000,require,team,-3,600,job,a\np,1,1,1,500,,,,,,\nq,1,1,2,1000,,team,,,job,\n",
      "p", &i));
  EXPECT_EQ(i.pods[0].request.shape.link, Link::kRequire);
  EXPECT_EQ(i.pods[0].request.priority, -3);
  EXPECT_EQ(i.pods[0].request.min_compute_milli, 600);
  EXPECT_EQ(i.pods[0].node, "a");
  EXPECT_EQ(i.spaces, (std::vector<std::string>{"team", "default"}));
  EXPECT_EQ(i.pods[0].request.gang, i.pods[2].request.gang);
  EXPECT_NE(i.pods[0].request.gang, 0u);
  EXPECT_EQ(i.pods[1].request.gang, 0u);
  const std::string nodes = "sn,cpu_milli,memory_mib,gpu,model,link_group\n";
  EXPECT_EQ(NodesError(nodes + "a,1,1,2,T4,0\n"), "nodes.csv:2: link_group: 1 numbers for 2 GPUs");
  EXPECT_EQ(NodesError(nodes + "a,1,1,2,T4,0|256\n"),
            "nodes.csv:2: link_group: \"0|256\" is not a list of numbers to 255");
  const std::string pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,link,min_gpu_milli\n";
  EXPECT_EQ(PodsError(pods + "p,1,1,1,500,near,\n"),
            "pods.csv:2: link is \"near\", not any, prefer or require");
  EXPECT_EQ(PodsError(pods + "p,1,1,1,500,,501\n"),
            "pods.csv:2: min_gpu_milli is more than gpu_milli");
}

TEST(OpenbCsv, ACutLastNumberIsPointedOut) {
  Inventory i;
  ASSERT_TRUE(ReadOpenbPods("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,1,10", "p", &i));
  ASSERT_EQ(i.warnings.size(), 1u);
  EXPECT_EQ(i.warnings[0], "p:2: no line end after the last row: is the file cut off?");
  Inventory whole;
  ASSERT_TRUE(ReadOpenbPods(kPods, "p", &whole));
  EXPECT_TRUE(whole.warnings.empty());
}

TEST(Order, RejectsWhatIsDamagedAndTellsItFromOrdersOfOtherLists) {
  Inventory i;
  ASSERT_TRUE(ReadOpenbNodes("sn,cpu_milli,memory_mib,gpu,model\na,1,1,1,A\nb,1,1,1,A\n", "n", &i));
  ASSERT_TRUE(ReadOpenbPods("name,cpu_milli,memory_mib,num_gpu,gpu_milli\np,1,1,1,500\n", "p", &i));
  EXPECT_TRUE(ParseOrder("# x\nnode_rank 1 0\narrivals 0 0 0 0 0\n", "o", i));
  for (const char* bad :
       {"", "arrivals 0\n", "node_rank 0 0\narrivals 0 0 0 0 0\n", "node_rank 1 0\narrivals 1\n",
        "node_rank 1 0\narrivals 0 x\n", "node_rank 1 0\n", "node_rank 1 -1\narrivals 0\n",
        "node_rank 1 0\narrivals 0 0 0 0 0", "node_rank 1 0\narrivals 0\n", "5 5 5 5\n",
        "node_rank 1 0\narrivals 0 0 0 0 1\n", "node_rank 1 0\narrivals 0 0 0 0 0\nx\n"}) {
    const Result<Order> order = ParseOrder(bad, "o", i);
    ASSERT_FALSE(order) << bad;
    EXPECT_EQ(order.error().code, ErrorCode::kInvalid) << bad;
    EXPECT_TRUE(order.error().message.starts_with("o:")) << order.error().message;
  }
  for (const char* other :
       {"node_rank 0\narrivals 0 0 0 0 0\n", "node_rank 1 0\narrivals 1 0 0 0\n",
        "node_rank 1 0\narrivals 0 0 0 0 0 0 0 0\n"}) {
    const Result<Order> order = ParseOrder(other, "o", i);
    ASSERT_FALSE(order) << other;
    EXPECT_EQ(order.error().code, ErrorCode::kNotFound) << other;
  }
}

TEST(Order, ADrawnOneGoesOnBesideARequestThatDoesNotFitBelowTheLimit) {
  Inventory i;
  ASSERT_TRUE(ReadOpenbNodes("sn,cpu_milli,memory_mib,gpu,model\na,1,1,8,A\nb,1,1,8,A\n", "n", &i));
  ASSERT_TRUE(
      ReadOpenbPods("name,cpu_milli,memory_mib,num_gpu,gpu_milli,gang\n"
                    "huge,1,1,17,1000,\nlarge,1,1,15,1000,\nsmall,1,1,1,50,\n"
                    "one,1,1,4,1000,g\ntwo,1,1,5,1000,g\n",
                    "p", &i));
  const std::vector<uint32_t> by_name = PodsByName(i);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    int64_t demand = 0;
    int members = 0;
    for (const uint32_t at : DrawOrder(i, seed, kInflateRatio).arrivals) {
      const Pod& pod = i.pods[by_name[at]];
      EXPECT_NE(pod.name, "huge");
      demand += pod.request.shape.TotalMilli();
      members += pod.request.gang != 0;
    }
    EXPECT_GT(demand, 20700) << seed;  // of 16 devices, 130 % are 20800
    EXPECT_LE(demand, 20800) << seed;
    EXPECT_EQ(members % 2, 0) << seed;
  }
}

}  // namespace
}  // namespace divvy::placement
