#include "src/cli/app.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "src/base/error_word.h"
#include "src/base/sim_spec.h"
#include "src/base/visible.h"

namespace divvy::cli {

namespace {
FILE* json_errors = nullptr;  // where a failing verb prints its error as JSON; nullptr: nowhere

// Names and command lines may hold bytes that are not UTF-8: they are replaced, not thrown over.
std::string Dump(const nlohmann::json& document, int indent) {
  return document.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}
}  // namespace

nlohmann::json ErrorJson(const Error& error) {
  return {{"code", ErrorWord(error.code)}, {"message", error.message}};
}

std::string JsonText(const nlohmann::json& document) { return Dump(document, 2); }

void PrintJson(const nlohmann::json& answer) {
  std::printf("%s\n", JsonText(answer).c_str());
  json_errors = nullptr;
}

void PrintJsonLine(const nlohmann::json& one, FILE* out) {
  std::fprintf(out, "%s\n", Dump(one, -1).c_str());
}

void ErrorsAsJsonTo(FILE* out) { json_errors = out; }

int StatusOf(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalid:
      return kBadInput;
    case ErrorCode::kNoRoom:
      return kRefused;
    case ErrorCode::kNotFound:
    case ErrorCode::kUnavailable:
    case ErrorCode::kEnding:
    case ErrorCode::kDenied:
      return kNotThere;
    case ErrorCode::kExists:
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      break;
  }
  return kFailed;
}

void Fail(const Error& error, int status) {
  std::fflush(stdout);
  const Error shown{error.code, Visible(error.message)};  // one line, whatever a file's name holds
  std::fprintf(stderr, "divvy: %s\n", shown.message.c_str());
  if (json_errors != nullptr) {
    PrintJsonLine({{"error", ErrorJson(shown)}}, json_errors);
    std::fflush(json_errors);
  }
  Exit(status);
}

void Fail(const Error& error) { Fail(error, StatusOf(error)); }

void Exit(int status) { throw CLI::RuntimeError(status); }

CLI::Option* AddFormat(CLI::App& app, Format& format) {
  return app
      .add_option_function<std::string>(
          "-o,--output",
          [&format](const std::string& text) {
            if (text == "json") {
              format = Format::kJson;
            } else if (text == "text") {
              format = Format::kText;
            } else {
              throw CLI::ValidationError("-o", "'" + text + "' is not text or json");
            }
          },
          "text (default) or json")
      ->type_name("FORMAT");
}

CLI::Option* AddSim(CLI::App& app, std::string& profile) {
  return app
      .add_option("--sim", profile,
                  "use a simulated machine instead of the real GPUs: h100, a100, t4, h100x4 (four)")
      ->check([](const std::string& text) {
        if (text.empty()) return std::string("is empty; give a profile, e.g. h100");
        const auto spec = ParseSimSpec(text);
        return spec.ok() ? std::string() : spec.error().message;
      })
      ->type_name("PROFILE");
}

CLI::Option* AddSize(CLI::App& app, const std::string& name, Bytes& bytes, const std::string& help,
                     std::string* typed) {
  return app
      .add_option_function<std::string>(
          name,
          [&bytes, name, typed](const std::string& text) {
            const Result<Bytes> parsed = ParseBytes(text);
            if (!parsed.ok()) throw CLI::ValidationError(name, parsed.error().message);
            if (parsed->n == 0)
              throw CLI::ValidationError(name, "0 is no amount of memory; write e.g. 512MiB");
            bytes = *parsed;
            if (typed != nullptr) *typed = text;
          },
          help)
      ->type_name("SIZE");
}

Result<int64_t> ParseDurationNs(const std::string& text) {
  const Error wrong =
      Invalid("'" + text + "' is not a length of time; write e.g. 20us, 500ms, 10s or 2m");
  size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    return wrong;
  }
  const std::string unit = text.substr(used);
  double scale = 0;
  if (unit == "ns") scale = 1;
  if (unit == "us") scale = 1e3;
  if (unit == "ms") scale = 1e6;
  if (unit == "s") scale = 1e9;
  if (unit == "m" || unit == "min") scale = 60e9;
  if (unit == "h") scale = 3600e9;
  if (scale == 0 || !std::isfinite(value) || value < 0 || value * scale > 1e18) return wrong;
  return static_cast<int64_t>(std::llround(value * scale));
}

CLI::Option* AddDuration(CLI::App& app, const std::string& name, int64_t& ns,
                         const std::string& help) {
  return app
      .add_option_function<std::string>(
          name,
          [&ns, name](const std::string& text) {
            const Result<int64_t> parsed = ParseDurationNs(text);
            if (!parsed.ok()) throw CLI::ValidationError(name, parsed.error().message);
            ns = *parsed;
          },
          help)
      ->type_name("TIME");
}

CLI::Validator NumberFrom(double least, double most, Kind kind) {
  const auto check = [=](const std::string& text) -> std::string {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    const bool whole = kind == Kind::kWhole;
    if (!text.empty() && *end == '\0' && value >= least && value <= most &&
        (!whole || value == std::floor(value)))
      return "";
    char range[80];
    std::snprintf(range, sizeof range, "a %snumber from %g to %g", whole ? "whole " : "", least,
                  most);
    return "'" + text + "' is not " + range;
  };
  return CLI::Validator(check, "");
}

std::vector<std::string>& CommandLine() {
  static auto& words = *new std::vector<std::string>;
  return words;
}

}  // namespace divvy::cli
