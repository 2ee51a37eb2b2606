#include "src/cli/share_options.h"

#include <algorithm>
#include <sstream>

#include "src/cli/app.h"
#include "src/cli/table.h"

namespace divvy::cli {
namespace {

Status ReadOnFull(const std::string& text, int64_t& wait_ns) {
  if (text == "fail") return {};
  if (text.rfind("wait=", 0) == 0) {
    constexpr int64_t kDayNs = int64_t{86'400} * 1'000'000'000;
    const Result<int64_t> parsed = ParseDurationNs(text.substr(5));
    if (!parsed.ok())
      return Invalid("--on-full: '" + text +
                     "' does not say how long, with a unit: write e.g. wait=500ms, wait=30s or "
                     "wait=5m");
    if (*parsed > kDayNs)
      return Invalid("--on-full: '" + text + "' is longer than the most there is, a day: wait=24h");
    wait_ns = *parsed;
    return {};
  }
  return Invalid("--on-full: '" + text + "' is not fail or wait=TIME, e.g. wait=30s");
}

}  // namespace

Status CompleteShare(ShareOptions& options) {
  ShareRequest& request = options.request;
  if (request.mem.n == 0) return Invalid("say how much memory the share has: --mem 4GiB");
  if (request.mem_max.n != 0 && request.mem_max < request.mem)
    return Invalid("--mem-max " + ToString(request.mem_max) + " is below --mem " +
                   ToString(request.mem));
  // Given several times they come in lines.
  std::replace(options.gpu.begin(), options.gpu.end(), '\n', ',');
  std::stringstream list(options.gpu);
  for (std::string one; std::getline(list, one, ',');) request.gpus.push_back(one);
  const bool gap = std::find(request.gpus.begin(), request.gpus.end(), "") != request.gpus.end();
  if (!options.gpu.empty() && (gap || options.gpu.back() == ','))
    return Invalid("--gpu '" + options.gpu +
                   "': give indices or UUIDs with a comma between two, as `divvy devices` lists "
                   "them");
  if (options.gpus) {
    if (!request.gpus.empty()) return Invalid("give --gpu or --gpus, not both");
    if (*options.gpus < 1 || *options.gpus > 16)
      return Invalid("--gpus " + std::to_string(*options.gpus) + ": give a number from 1 to 16");
    request.gpu_count = static_cast<unsigned>(*options.gpus);
  }
  return ReadOnFull(options.on_full, request.on_full_wait_ns);
}

void AddShareOptions(CLI::App& verb, ShareOptions& options) {
  ShareRequest& request = options.request;
  AddSize(verb, "--mem", request.mem, "memory of the share, on each of its devices (required)",
          &request.mem_typed);
  AddSize(verb, "--mem-max", request.mem_max,
          "may use up to this while nobody else was promised it");
  AddComputeOptions(verb, request.compute);
  verb.add_option("--gpu", options.gpu,
                  "which devices: indices or UUIDs, with commas or one by one (see `divvy "
                  "devices`)")
      ->join()
      ->type_name("I|UUID,...");
  verb.add_option("--gpus", options.gpus, "how many devices, chosen by the daemon (default 1)")
      ->type_name("N");
  AddSim(verb, request.sim);
  verb.add_option("--on-full", options.on_full,
                  "what an allocation beyond the share gets: fail (default), or wait=TIME for room")
      ->type_name("fail|wait=TIME");
  verb.add_flag("--overcommit", request.overcommit,
                "promise more than the device has, or less than a context takes; allocations may "
                "then fail within the share");
}

CLI::Option* AddTenantName(CLI::App& verb, const std::string& option, std::string& name,
                           const std::string& help) {
  return verb.add_option(option, name, help)
      ->check([](const std::string& text) {
        const Status fits = CheckName(text);
        return fits.ok() ? std::string() : fits.error().message;
      })
      ->type_name(option[0] == '-' ? "NAME" : "");
}

}  // namespace divvy::cli
