// A program's command line as JSON: every verb and option with the text that --help shows. What the
// manual pages and the shells' completions are made from (codegen/), so that they say what the
// programs do. Behind `divvy --describe` and `divvyd --describe`, which no person needs.
//
// Pure; threads: any.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace divvy {

// {"name", "about", "footer", "options": [{"names", "value", "help", "required", "many"}],
//  "verbs": [...]}. `names` of a positional argument is its one name without a dash; `value` of a
// flag is null.
std::string Describe(const CLI::App& app);

}  // namespace divvy
