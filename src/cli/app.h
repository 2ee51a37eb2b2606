// What every verb of divvy shares: exit status, how errors are told, options that several verbs
// have.
//
// A verb is one file with one Add function: it declares options on a subcommand and does its work
// in the subcommand's callback. It ends by returning (status 0) or by Fail/Exit, which throw
// CLI::RuntimeError for main to turn into the process's status. One thread.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "src/base/bytes.h"
#include "src/base/result.h"

namespace divvy::cli {

enum ExitStatus : int {
  kOk = 0,
  kFailed = 1,       // something broke; the message says what
  kBadInput = 2,     // the command line is wrong
  kRefused = 3,      // not enough memory: no room for the share, or an allocation was refused
  kNotThere = 4,     // no such tenant or device, no daemon, no driver, not this user's
  kRunFailed = 125,  // divvy run: Divvy itself failed, CMD was not started
  kCannotRun = 126,  // divvy run: CMD was found but could not be started
  kNoCommand = 127,  // divvy run: CMD was not found
};

int StatusOf(const Error& error);

// Where `-o json` was asked for, every verb prints one JSON document to stdout: its answer by this
// or, when it fails, {"error": {"code": "no_room", "message": "..."}}.
void PrintJson(const nlohmann::json& answer);
// On one line, for what comes one after another, or goes elsewhere than an answer.
void PrintJsonLine(const nlohmann::json& one, FILE* out = stdout);
std::string JsonText(const nlohmann::json& document);  // as PrintJson prints it, without the end
nlohmann::json ErrorJson(const Error& error);          // the {"code", "message"}
// For a verb whose stdout is somebody else's: the error goes to stderr, on a line of its own.
void ErrorsAsJsonTo(FILE* out);  // nullptr: not at all

// Prints "divvy: message" to stderr and ends the verb with StatusOf(error) or `status`.
[[noreturn]] void Fail(const Error& error);
[[noreturn]] void Fail(const Error& error, int status);
[[noreturn]] void Exit(int status);

template <typename T>
T OrFail(Result<T> result) {
  if (!result.ok()) Fail(result.error());
  return std::move(result).value();
}
inline void OrFail(Result<void> result) {
  if (!result.ok()) Fail(result.error());
}

// -o text|json
enum class Format { kText, kJson };
CLI::Option* AddFormat(CLI::App& app, Format& format);
// --sim PROFILE: the simulated machine that the verb is about; "" = the real one
CLI::Option* AddSim(CLI::App& app, std::string& profile);
// An option that takes a size: 4GiB, 512MiB, 2g. `bytes.n` stays 0 when it is not given; a given 0
// is refused. `typed`, where wanted: what was written.
CLI::Option* AddSize(CLI::App& app, const std::string& name, Bytes& bytes, const std::string& help,
                     std::string* typed = nullptr);
// "500ms", "10s", "2m" as nanoseconds; also "20us".
Result<int64_t> ParseDurationNs(const std::string& text);
CLI::Option* AddDuration(CLI::App& app, const std::string& name, int64_t& ns,
                         const std::string& help);

// For ->check(): a number from `least` to `most`; NaN is none.
enum class Kind { kAny, kWhole };
CLI::Validator NumberFrom(double least, double most, Kind kind = Kind::kAny);

// What stands after "--" on the command line; main cuts it off before options are parsed.
std::vector<std::string>& CommandLine();

}  // namespace divvy::cli
