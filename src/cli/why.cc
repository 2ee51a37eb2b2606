// divvy why: where the last minute of a tenant's time went, and what limits it.
#include <cstdio>

#include "src/cli/app.h"
#include "src/cli/machines.h"
#include "src/cli/table.h"
#include "src/cli/tenancy.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

using nlohmann::json;

struct WhyOptions {
  Format format = Format::kText;
  std::string sim, name;
};

struct What {
  const char* word;
  const char* text;
};
constexpr What kWhats[] = {
    {"gpu", "its own GPU work"},
    {"others", "waiting for its turn"},
    {"cap", "kept back by its cap"},
    {"paused", "paused by an operator"},
    {"audit", "shut by the audit"},
    {"copies", "copies between host and device"},
    {"refused", "refused memory, no GPU work"},
    {"host", "host: nothing asked of the GPU"},
    {"alone", "alone on the GPU, not measured"},
    {"absent", "no process on the GPU"},
};

std::string TextOf(const std::string& word) {
  for (const What& what : kWhats)
    if (word == what.word) return what.text;
  return word;
}

std::string Percent(double percent) {
  char text[16];
  std::snprintf(text, sizeof text, "%5.1f %%", percent);
  return text;
}

void Show(const std::string& tenant, const json& share) {
  std::printf("%s on GPU %d, the last %.0f s\n", tenant.c_str(), share.value("index", 0),
              share.value("span_s", 0.0));
  bool estimated = false;
  for (const json& part : share.value("parts", json::array())) {
    const bool roughly = part.value("estimated", false);
    estimated = estimated || roughly;
    std::printf("  %s%s  %s\n", Percent(part.value("percent", 0.0)).c_str(), roughly ? " ~" : "  ",
                TextOf(part.value("what", "")).c_str());
    if (part.value("what", "") != "others") continue;
    for (const json& other : share.value("waited_for", json::array())) {
      const std::string name = other.value("tenant", "");
      const double has = other.value("guaranteed_percent", 0.0);
      const std::string who = name.empty() ? "nobody ran: the GPU changed hands, or idled"
                              : has > 0    ? name + " ran, who has" + Percent(has) + " guaranteed"
                                           : name + " ran";
      if (other.value("percent", 0.0) >= 0.1)
        std::printf("              %s of it %s\n", Percent(other.value("percent", 0.0)).c_str(),
                    who.c_str());
    }
  }
  if (const auto n = share.value("refusals", uint64_t{0}); n != 0)
    std::printf("  refused memory %llu times\n", static_cast<unsigned long long>(n));
  if (estimated) std::printf("  (~ from looks at its work, up to some thousand a second)\n");
  std::printf("%s %s\n", tenant.c_str(), share.value("verdict", "").c_str());
}

void Why(const WhyOptions& options) {
  OrFail(CheckName(options.name));
  const Machine machine = OrFail(FindTenant(options.name, options.sim));
  json answer = OrFail(machine.api.Get("/v1/tenants/" + options.name + "/why"));
  if (options.format == Format::kJson) {
    answer["machine"] = machine.Name();
    PrintJson(answer);
    return;
  }
  const json shares = answer.value("shares", json::array());
  if (shares.empty())
    std::printf("%s has just come: ask again in a second\n", options.name.c_str());
  for (const json& share : shares) {
    if (&share != &shares.front()) std::printf("\n");
    Show(options.name, share);
  }
}

}  // namespace

void AddWhy(CLI::App& app) {
  auto options = std::make_shared<WhyOptions>();
  auto* verb = app.add_subcommand(
      "why",
      "what limits a tenant: where its last minute went\n\n"
      "Its wall time as 100 %: its own GPU work (as billed), waiting for its turn and for whom, "
      "its\n"
      "cap, copies, refusals, and its host asking for nothing. What is marked ~ is from looks at "
      "its\n"
      "work and not exact. A tenant that has the GPU to itself is not measured.\n\n"
      "  divvy why train");
  verb->add_option("name", options->name, "the tenant, as `divvy ps` names it")
      ->required()
      ->type_name("");
  AddFormat(*verb, options->format);
  AddSim(*verb, options->sim)->description("the machine, when several have a tenant of that name");
  verb->callback([options] { Why(*options); });
}

}  // namespace divvy::cli
