// divvy top without a terminal: what the API's JSON becomes on 80 columns, and what keys do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/cli/top/model.h"
#include "src/cli/top/view.h"

namespace divvy::cli::top {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json Share(const char* name, double got, uint64_t used, bool metered = true) {
  return {
      {"name", name},
      {"class", "standard"},
      {"state", "running"},
      {"paused", false},
      {"command", {"python", "train.py"}},
      {"refusals", {{"out_of_share", 3}, {"denied", 2}}},
      {"findings", json::array()},
      {"processes",
       {{{"pid", 71}, {"command", "python train.py"}, {"state", "live"}, {"used_bytes", used}}}},
      {"shares",
       {{{"device", "GPU-a"},
         {"index", 0},
         {"used_bytes", used},
         {"limit_bytes", uint64_t{16} << 30},
         {"health", "ok"},
         {"compute",
          {{"percent", 30.0},
           {"max_percent", 50.0},
           {"metered", metered},
           {"used_percent_1s", metered ? json(got) : json()},
           {"used_percent_60s", metered ? json(got - 1) : json()},
           {"wanted_percent_1s", metered ? json(100.0) : json()},
           {"wanted_percent_60s", metered ? json(99.0) : json()},
           {"gate_wait_percent", 170.0}}}}}}};
}

Model TestModel() {
  const json devices = {{"devices",
                         {{{"uuid", "GPU-a"},
                           {"index", 0},
                           {"name", "NVIDIA H100 80GB HBM3 of a very long name"},
                           {"total_bytes", uint64_t{80} << 30},
                           {"used_bytes", uint64_t{12} << 30},
                           {"promised_bytes", uint64_t{48} << 30},
                           {"outside_bytes", uint64_t{1} << 30},
                           {"outside", {{{"pid", 99}, {"command", "Xorg"}, {"used_bytes", 5}}}},
                           {"health", "ok"},
                           {"cordon_reason", "Xid 79"}}}}};
  const json tenants = {{"tenants",
                         {Share("alpha", 29.6, uint64_t{3} << 30),
                          Share("beta-with-a-long-name", 55, uint64_t{1} << 30),
                          Share("gamma", 0, uint64_t{9} << 30, false)}}};
  Model model;
  AddMachine("real", devices, tenants, model);
  return model;
}

std::string Screen(const std::vector<Line>& lines) {
  std::string out;
  for (const Line& line : lines) out += line.text + "\n";
  return out;
}

std::vector<std::string> Order(const Model& model, const State& state) {
  std::vector<std::string> out;
  for (const ShareRow* s : Shown(model, state)) out.push_back(s->tenant);
  return out;
}

TEST(TopModel, WhatIsMissingOrWrongThrowsNothing) {
  for (const json& odd :
       {json(), json(7), json("x"), json::array(), json::object(),
        json{{"devices", 3}, {"tenants", {1, "a", nullptr}}},
        json{{"devices", {{{"uuid", 7}, {"index", -1}, {"outside", {1}}}}},
             {"tenants", {{{"name", {1}}, {"shares", {2, {{"compute", 9}}}}}}}}}) {
    Model model;
    AddMachine("real", odd, odd, model);
    Draw(model, {}, 80, 24);
  }
  EXPECT_EQ(Printable("a\x1b[2Jb\xe2\x82\xac\x7f"), "a?[2Jb??");
}

TEST(TopView, EightyByTwentyFour) {
  const Model model = TestModel();
  const std::vector<Line> lines = Draw(model, {}, 80, 24);
  ASSERT_EQ(lines.size(), 24u);
  for (const Line& line : lines) EXPECT_LE(line.text.size(), 80u) << line.text;
  const std::string screen = Screen(lines);
  for (const char* text : {"1 GPU, 3 tenants", "TENANT", "GOT%", "alpha", "beta-with-a-~",
                           "3.0G/16G", "30/29", "100/99", "30<50", "170", "12G/80G", "48G",
                           "CORDONED", "1.0G (1)", "outside of Divvy", "Xorg", "q leave"})
    EXPECT_THAT(screen, HasSubstr(text)) << screen;
  // Not measured is not nothing.
  EXPECT_THAT(screen, HasSubstr("-/-"));
}

TEST(TopView, AnySize) {
  const Model model = TestModel();
  for (const Mode mode : {Mode::kList, Mode::kHelp, Mode::kFilter, Mode::kConfirm})
    for (unsigned rows = 1; rows < 30; ++rows)
      for (unsigned columns : {1u, 2u, 10u, 40u, 79u, 80u, 200u}) {
        State state;
        state.mode = mode;
        const std::vector<Line> lines = Draw(model, state, columns, rows);
        EXPECT_EQ(lines.size(), rows);
        for (const Line& line : lines) EXPECT_LE(line.text.size(), columns);
      }
  EXPECT_THAT(Screen(Draw(model, {}, 200, 24)), HasSubstr("python train.py"));
}

TEST(TopView, TheChosenOneStaysInSight) {
  Model model = TestModel();
  const ShareRow row = model.shares[0];
  for (int i = 0; i < 200; ++i) {
    model.shares.push_back(row);
    model.shares.back().tenant = "t" + std::to_string(1000 + i);
  }
  State state;
  state.sort = Sort::kName;
  Press(kEnd, model, state);
  Press(kEnd, model, state);
  EXPECT_EQ(state.tenant, "t1199");
  unsigned selected = 0;
  for (const Line& line : Draw(model, state, 80, 24)) selected += line.style == Style::kSelected;
  EXPECT_EQ(selected, 1u);
}

TEST(TopKeys, SortFilterAndReverse) {
  const Model model = TestModel();
  State state;
  EXPECT_EQ(Order(model, state),
            (std::vector<std::string>{"beta-with-a-long-name", "alpha", "gamma"}));
  Press('r', model, state);
  EXPECT_EQ(Order(model, state),
            (std::vector<std::string>{"gamma", "alpha", "beta-with-a-long-name"}));
  Press('r', model, state);
  state.sort = Sort::kMemory;
  EXPECT_EQ(Order(model, state).front(), "gamma");
  Press('/', model, state);
  for (const char c : std::string("alp")) Press(c, model, state);
  EXPECT_EQ(Order(model, state), std::vector<std::string>{"alpha"});
  Press(kBackspace, model, state);
  Press(kEnter, model, state);
  EXPECT_EQ(state.mode, Mode::kList);
  EXPECT_EQ(state.filter, "al");
  Press(kEscape, model, state);
  EXPECT_EQ(Order(model, state).size(), 3u);
  Press('p', model, state);
  EXPECT_THAT(Screen(Draw(model, state, 80, 24)), HasSubstr("71"));
  Press('q', model, state);
  EXPECT_TRUE(state.quit);
}

TEST(TopKeys, NothingChangesWithoutAYes) {
  const Model model = TestModel();
  State state;
  EXPECT_FALSE(Press(' ', model, state).has_value());
  EXPECT_THAT(state.message, HasSubstr("choose a tenant"));
  Press(kDown, model, state);
  EXPECT_EQ(state.tenant, "beta-with-a-long-name");
  for (const int no : {int{'n'}, int{kEnter}, int{kEscape}, int{' '}}) {
    EXPECT_FALSE(Press(' ', model, state).has_value());
    EXPECT_EQ(state.mode, Mode::kConfirm);
    EXPECT_THAT(Screen(Draw(model, state, 80, 24)), HasSubstr("pause 'beta-with-a-long-name'?"));
    EXPECT_FALSE(Press(no, model, state).has_value());
    EXPECT_EQ(state.message, "nothing was changed");
  }
  Press(' ', model, state);
  const std::optional<Action> pause = Press('y', model, state);
  ASSERT_TRUE(pause.has_value());
  EXPECT_EQ(pause->tenant, "beta-with-a-long-name");
  EXPECT_EQ(pause->machine, "real");
  EXPECT_EQ(pause->patch, (json{{"paused", true}}));
}

TEST(TopKeys, AShareIsTypedCheckedAndAsked) {
  const Model model = TestModel();
  State state;
  Press(kDown, model, state);
  const auto type = [&](int key, const std::string& text) {
    Press(key, model, state);
    for (const char c : text) Press(c, model, state);
    Press(kEnter, model, state);
  };
  type('c', "40");
  EXPECT_THAT(state.question, HasSubstr("40 %"));
  EXPECT_EQ(Press('y', model, state)->patch, (json{{"compute_percent", 40.0}}));
  type('c', "0");
  EXPECT_EQ(Press('y', model, state)->patch, (json{{"compute_percent", 0}}));
  type('m', "6GiB");
  EXPECT_EQ(Press('y', model, state)->patch, (json{{"mem_bytes", uint64_t{6} << 30}}));
  for (const auto& [key, text] :
       {std::pair<int, const char*>('c', "140"), {'c', "x"}, {'m', "0"}, {'m', "lots"}}) {
    type(key, text);
    EXPECT_EQ(state.mode, Mode::kList) << text;
    EXPECT_FALSE(state.message.empty()) << text;
    EXPECT_FALSE(state.asked.has_value());
  }
}

}  // namespace
}  // namespace divvy::cli::top
