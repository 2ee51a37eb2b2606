// divvy: the command line. Parses, calls one verb, turns what it threw into an exit status.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "src/base/describe.h"
#include "src/cli/app.h"
#include "src/cli/verbs.h"

namespace divvy::cli {
namespace {

constexpr char kAbout[] =
    "Shares of NVIDIA GPUs for programs that know nothing about it.\n\n"
    "  divvy run --mem 4GiB -- python train.py     run a command in a share of 4 GiB\n"
    "  divvy ps                                    who holds what\n"
    "  divvy set NAME --mem 6GiB                   change it while it runs\n"
    "  divvy run --sim h100 --mem 2GiB -- CMD      the same on a simulated GPU";

constexpr char kFooter[] =
    "Exit status: 0 done, 1 failed, 2 bad command line, 3 refused for lack of memory,\n"
    "4 no such tenant, device, daemon or driver. `divvy run` gives CMD's own status.";

// In a list of subcommands only the first line of each description.
class Brief : public CLI::Formatter {
 public:
  std::string make_subcommand(const CLI::App* sub) const override {
    const std::string text = sub->get_description();
    std::stringstream line;
    CLI::detail::format_help(line, sub->get_name(), text.substr(0, text.find('\n')),
                             get_column_width());
    return line.str();
  }
};

// The subcommands that `app` has, as a list; "" = it has none.
std::string VerbsOf(const CLI::App& app) {
  std::string list;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; }))
    list += (list.empty() ? "" : "|") + sub->get_name();
  return list;
}

// `divvy --version` and `divvy help VERB…` are other words for `version` and `VERB… --help`.
std::vector<std::string> Words(int argc, char** argv) {
  std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty()) return words;
  for (const char* same : {"--version", "-v", "-V"})
    if (words[0] == same) words[0] = "version";
  if (words[0] == "help") {
    words.erase(words.begin());
    words.emplace_back("--help");
  }
  std::reverse(words.begin(), words.end());  // as CLI11 wants it
  return words;
}

// Whether -o json was asked for, on a command line that may be wrong otherwise. For those verbs
// whose -o is a file it never is.
bool WantsJson(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i], next = i + 1 < argc ? argv[i + 1] : "";
    if (word == "-ojson" || word == "-o=json" || word == "--output=json") return true;
    if ((word == "-o" || word == "--output") && next == "json") return true;
  }
  return false;
}

// One line, whatever is wrong with the command line.
int Complain(const CLI::App& app, const CLI::ParseError& error, bool as_json) {
  const auto chosen = app.get_subcommands();
  std::string verb = "divvy";
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    verb += " " + at->get_name();
  }
  std::string what = error.what();
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  const std::vector<std::string> extra = app.remaining(/*recurse=*/true);
  const std::string below = VerbsOf(*at);
  if (!below.empty() && !extra.empty()) {
    what = "there is no '" + verb + " " + extra.front() + "'; there are: " + below;
  } else if (!below.empty()) {
    what = "say which: " + verb + " " + below;
  } else if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !extra.empty()) {
    what = extra.front().rfind('-', 0) == 0 ? "there is no option '" + extra.front() + "'"
                                            : "'" + extra.front() + "' is one word too many";
  }
  if (const size_t at = what.find(": At Most 1 required but received"); at != std::string::npos)
    what = what.substr(0, at) + " is given more than once";
  for (char& c : what)
    if (c == '\n') c = ' ';
  const bool is_run = !chosen.empty() && (chosen.front()->get_name() == "run" ||
                                          chosen.front()->get_name() == "advise");
  what += " (see '" + verb + " --help')";
  ErrorsAsJsonTo(!as_json ? nullptr : is_run ? stderr : stdout);
  try {
    Fail(Invalid(what), is_run ? kRunFailed : kBadInput);
  } catch (const CLI::RuntimeError& end) {
    return end.get_exit_code();
  }
}

// The status that `status` becomes if what was printed did not get out (a full disk).
int Printed(int status) {
  errno = 0;
  std::cout.flush();
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.good()) return status;
  if (status != kOk) return status;
  std::fprintf(stderr, "divvy: stdout: %s: the answer is not complete\n",
               errno != 0 ? std::strerror(errno) : "cannot be written");
  return kFailed;
}

int Main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--") != 0) continue;
    CommandLine().assign(argv + i + 1, argv + argc);
    argc = i;
  }
  const bool as_json = WantsJson(argc, argv);
  ErrorsAsJsonTo(as_json ? stdout : nullptr);
  CLI::App app{kAbout, "divvy"};
  app.footer(kFooter);
  app.formatter(std::make_shared<Brief>());
  app.get_formatter()->column_width(28);
  app.require_subcommand(1);
  AddRun(app);
  AddPs(app);
  AddDevices(app);
  AddTop(app);
  AddWhy(app);
  AddEvents(app);
  AddSet(app);
  AddPause(app);
  AddShare(app);
  AddCdi(app);
  AddRecord(app);
  AddAdvise(app);
  AddLoad(app);
  AddVerify(app);
  [[maybe_unused]] CLI::App* simulate =
      app.add_subcommand("simulate", "ask what a cluster or a device would do, without either");
  simulate->require_subcommand(1);
#ifdef DIVVY_SIMULATE_CLUSTER
  AddSimulateCluster(*simulate);
#endif
#ifdef DIVVY_SIMULATE_DEVICE
  AddSimulateDevice(*simulate);
#endif
  AddDashboard(app);
  AddSmi(app);
  AddDoctor(app);
  AddDaemon(app);
  AddVersion(app);
  if (argc == 2 && std::strcmp(argv[1], "--describe") == 0) {
    std::puts(Describe(app).c_str());
    return kOk;
  }
  try {
    app.parse(Words(argc, argv));
    return Printed(kOk);
  } catch (const CLI::RuntimeError& end) {
    return Printed(end.get_exit_code());
  } catch (const CLI::Success& help) {
    return app.remaining(/*recurse=*/true).empty() ? Printed(app.exit(help))
                                                   : Complain(app, help, as_json);
  } catch (const CLI::ParseError& error) {
    return Complain(app, error, as_json);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "divvy: %s\n", error.what());
    return kFailed;
  }
}

}  // namespace
}  // namespace divvy::cli

int main(int argc, char** argv) { return divvy::cli::Main(argc, argv); }
