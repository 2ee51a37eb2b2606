#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "src/base/bytes.h"
#include "src/base/device_timing.h"
#include "src/base/paths.h"
#include "src/base/percent.h"
#include "src/base/sim_spec.h"
#include "src/base/visible.h"

namespace divvy {
namespace {

TEST(ParseBytes, ReadsWhatPeopleType) {
  EXPECT_EQ(ParseBytes("4GiB")->n, 4ull << 30);
  EXPECT_EQ(ParseBytes("512MiB")->n, 512ull << 20);
  EXPECT_EQ(ParseBytes("2g")->n, 2ull << 30);
  EXPECT_EQ(ParseBytes("1.5G")->n, 3ull << 29);
  EXPECT_EQ(ParseBytes("3gb")->n, 3ull << 30);
  EXPECT_EQ(ParseBytes("1073741824")->n, 1ull << 30);
  EXPECT_EQ(ParseBytes("0")->n, 0u);
}

TEST(ParseBytes, RefusesNonsenseAndSaysWhatToWrite) {
  for (const char* bad :
       {"", "-1", "-1g", "nan", "4XiB", "4GiBs", "g", "1..2g", "99999999999t", "1.5"}) {
    const auto r = ParseBytes(bad);
    ASSERT_FALSE(r.ok()) << bad;
    EXPECT_NE(r.error().message.find("4GiB"), std::string::npos) << r.error().message;
  }
}

TEST(Bytes, PrintsShort) {
  EXPECT_EQ(ToString(Bytes{2ull << 30}), "2 GiB");
  EXPECT_EQ(ToString(Bytes{3ull << 29}), "1.5 GiB");
  EXPECT_EQ(ToString(Bytes{37}), "37 B");
}

TEST(Bytes, UnlikeAmountsReadUnlike) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(ToStringsApart({1_GiB, 2_GiB, 1_GiB}), (Texts{"1 GiB", "2 GiB", "1 GiB"}));
  EXPECT_EQ(ToStringsApart({81008_MiB, 81007_MiB}), (Texts{"79.109 GiB", "79.108 GiB"}));
  EXPECT_EQ(ToStringsApart({1_GiB, 1_GiB + 1_B}), (Texts{"1 GiB", "1073741825 B"}));
}

TEST(ParsePercent, BoundsAndForms) {
  EXPECT_EQ(ParsePercent("30")->milli, 30000u);
  EXPECT_EQ(ParsePercent("12.5%")->milli, 12500u);
  for (const char* bad : {"0", "101", "-1", "nan", "inf", "", "abc", "3x"})
    EXPECT_FALSE(ParsePercent(bad).ok()) << bad;
}

TEST(SimSpec, ReadsModelCountAndDilation) {
  const auto spec = ParseSimSpec("h100x4@x10");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->model, "h100");
  EXPECT_EQ(spec->count, 4u);
  EXPECT_EQ(spec->dilation, 10u);
  EXPECT_EQ(ParseSimSpec("t4")->count, 1u);
  EXPECT_EQ(ParseSimSpec("a100@2")->dilation, 2u);
  for (const char* bad :
       {"", "h", "h1000", "../../etc", "h100x", "h100x0", "h100x17", "h100x-1", "h100x4x2", "h100@",
        "h100@x0", "h100@x1001", "h100@x1.5", "h100x1 ", "x4", "@x2"}) {
    const auto refused = ParseSimSpec(bad);
    ASSERT_FALSE(refused.ok()) << bad;
    EXPECT_NE(refused.error().message.find(bad), std::string::npos) << bad;
  }
}

TEST(DeviceTiming, ByTheNamesThatNvmlGives) {
  EXPECT_EQ(TimingOf("NVIDIA H100 80GB HBM3").switch_us, 60u);
  EXPECT_EQ(TimingOf("NVIDIA A100-PCIE-40GB").switch_us, 80u);
  EXPECT_EQ(TimingOf("NVIDIA A10").switch_us, 80u);
  EXPECT_EQ(TimingOf("NVIDIA A10G").switch_us, 80u);
  EXPECT_EQ(TimingOf("NVIDIA L4").switch_us, 80u);
  EXPECT_EQ(TimingOf("Tesla T4").switch_us, 140u);
  EXPECT_EQ(TimingOf("Tesla V100-SXM2-16GB").switch_us, 140u);
  EXPECT_EQ(TimingOf("NVIDIA GB200").switch_us, 60u);  // not known: as the newest that is
  EXPECT_EQ(TimingOf("").slice_us, 1024u);
}

TEST(Paths, OneFolderPerMachine) {
  EXPECT_EQ(paths::MachineDir("/run/divvy", ""), "/run/divvy");
  EXPECT_EQ(paths::MachineDir("/run/divvy", "h100x4@x10"), "/run/divvy/sim/h100x4@x10");
  EXPECT_EQ(paths::MachineDir("/run/divvy", "../../etc"), "/run/divvy/sim/_._.._etc");
}

TEST(Paths, MakeRuntimeDirMakesParentsAndRefusesAFile) {
  char root[] = "/tmp/divvy-paths-XXXXXX";
  ASSERT_NE(::mkdtemp(root), nullptr);
  const std::string dir = std::string(root) + "/a/b";
  EXPECT_TRUE(paths::MakeRuntimeDir(dir).ok());
  EXPECT_TRUE(paths::MakeRuntimeDir(dir).ok());
  std::ofstream(dir + "/file") << "x";
  EXPECT_FALSE(paths::MakeRuntimeDir(dir + "/file").ok());
  std::filesystem::remove_all(root);
}

TEST(Visible, WhatATerminalShouldNotGetIsEscaped) {
  EXPECT_EQ(Visible("plain text, über €🙂"), "plain text, über €🙂");
  EXPECT_EQ(Visible("a\nb\x1b[2J\x7f"), "a\\nb\\x1b[2J\\x7f");
  EXPECT_EQ(Visible("\xff\xc3"), "\\xff\\xc3");           // no UTF-8, cut UTF-8
  EXPECT_EQ(Visible("\xc0\x80"), "\\xc0\\x80");           // longer than need be
  EXPECT_EQ(Visible("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(Visible("\xc2\x9bm"), "\\xc2\\x9bm");         // a control character of two bytes
  EXPECT_EQ(Visible(std::string_view("\0x", 2)), "\\x00x");
  EXPECT_EQ(Visible("abcdef", 6), "abcdef");
  EXPECT_EQ(Visible("abcdefg", 6), "abcdef...");
  EXPECT_EQ(Visible("abcd€", 6), "abcd...");
}

}  // namespace
}  // namespace divvy
