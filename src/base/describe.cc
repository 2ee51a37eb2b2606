#include "src/base/describe.h"

#include <cstdio>
#include <vector>

namespace divvy {
namespace {

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

std::string List(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : ",") + item;
  return "[" + out + "]";
}

std::string DescribeOption(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back(Quoted("-" + name));
  for (const std::string& name : option.get_lnames()) names.push_back(Quoted("--" + name));
  if (names.empty()) names.push_back(Quoted(option.get_name(/*positional=*/true)));
  const bool flag = option.get_items_expected_max() == 0;
  return "{\"names\":" + List(names) +
         ",\"value\":" + (flag ? "null" : Quoted(option.get_type_name())) +
         ",\"help\":" + Quoted(option.get_description()) +
         ",\"required\":" + (option.get_required() ? "true" : "false") +
         ",\"many\":" + (option.get_expected_max() > 1 ? "true" : "false") + "}";
}

}  // namespace

std::string Describe(const CLI::App& app) {
  std::vector<std::string> options, verbs;
  for (const CLI::Option* option : app.get_options())
    if (!option->get_group().empty()) options.push_back(DescribeOption(*option));
  for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
    if (!verb->get_group().empty()) verbs.push_back(Describe(*verb));
  return "{\"name\":" + Quoted(app.get_name()) + ",\"about\":" + Quoted(app.get_description()) +
         ",\"footer\":" + Quoted(app.get_footer()) + ",\"options\":" + List(options) +
         ",\"verbs\":" + List(verbs) + "}";
}

}  // namespace divvy
