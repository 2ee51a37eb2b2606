#include "src/daemon/api.h"

#include <fcntl.h>
#include <httplib.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "src/daemon/metrics.h"
#include "src/daemon/socket.h"

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;
constexpr size_t kWorkers = 16;  // a client that keeps its connection holds one for 2 s
constexpr size_t kLargestBody = 64 << 10;

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  return ::gethostname(name, HOST_NAME_MAX) == 0 ? name : "";
}

void Answer(httplib::Response& response, int status, const Json& body) {
  response.status = status;
  // A command line may hold bytes that are not UTF-8: they are replaced, not thrown over.
  response.set_content(body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n",
                       "application/json");
}

void Answer(httplib::Response& response, const Error& error) {
  Answer(response, HttpStatus(error.code),
         {{"error", {{"code", ErrorWord(error.code)}, {"message", error.message}}}});
}

void Answer(httplib::Response& response, const Result<Json>& result, int status = 200) {
  if (result.ok()) {
    Answer(response, status, *result);
  } else {
    Answer(response, result.error());
  }
}

class Server : public Api, private httplib::Server {
 public:
  Server(const ApiOptions& options, Node& node, Events& events, std::function<void()> shutdown)
      : options_(options), node_(node), events_(events), shutdown_(std::move(shutdown)) {
    new_task_queue = [] { return new httplib::ThreadPool(kWorkers); };
    set_payload_max_length(kLargestBody);
    set_read_timeout(5);
    set_write_timeout(5);
    set_keep_alive_timeout(2);
    set_tcp_nodelay(false);
    Routes();
  }
  ~Server() override {
    stop();
    if (thread_.joinable()) thread_.join();
  }
  void Serve(UniqueFd listener) {
    ::fcntl(listener.get(), F_SETFL, 0);  // its accept blocks
    svr_sock_ = listener.release();
    thread_ = std::thread([this] { listen_after_bind(); });
    while (!is_running()) std::this_thread::yield();  // or a stop() right away would be lost
  }

 private:
  void Routes();
  void Metrics(const httplib::Request& in, httplib::Response& out);
  const ApiOptions options_;
  Node& node_;
  Events& events_;
  std::function<void()> shutdown_;
  std::thread thread_;
};

void Server::Routes() {
  using httplib::Request;
  using httplib::Response;
  Get("/v1/status",
      [this](const Request&, Response& out) { Answer(out, 200, node_.StatusJson()); });
  Get("/v1/devices",
      [this](const Request&, Response& out) { Answer(out, 200, node_.DevicesJson()); });
  Get("/v1/tenants", [this](const Request&, Response& out) { Answer(out, node_.TenantsJson("")); });
  Get("/v1/tenants/([^/]+)",
      [this](const Request& in, Response& out) { Answer(out, node_.TenantsJson(in.matches[1])); });
  Post("/v1/tenants", [this](const Request& in, Response& out) {
    const Result<TenantRequest> request = ParseTenantRequest(in.body);
    Answer(out, request.ok() ? node_.CreateTenant(*request) : request.error(), 201);
  });
  Patch("/v1/tenants/([^/]+)", [this](const Request& in, Response& out) {
    const Result<TenantPatch> patch = ParseTenantPatch(in.body);
    Answer(out, patch.ok() ? node_.PatchTenant(in.matches[1], *patch) : patch.error());
  });
  Delete("/v1/tenants/([^/]+)", [this](const Request& in, Response& out) {
    const Status s = node_.DeleteTenant(in.matches[1], in.get_param_value("force") == "1");
    if (s.ok()) {
      Answer(out, 200, Json::object());
    } else {
      Answer(out, s.error());
    }
  });
  Post("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const Result<uint64_t> for_ms = ParseRecording(in.body);
    Answer(out, for_ms.ok() ? node_.StartRecording(in.matches[1], *for_ms) : for_ms.error());
  });
  Get("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const std::string text = in.get_param_value("since");
    uint64_t since = 0;
    std::from_chars(text.data(), text.data() + text.size(), since);
    Answer(out, node_.Records(in.matches[1], since));
  });
  Delete("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const Status s = node_.StopRecording(in.matches[1]);
    if (s.ok()) {
      Answer(out, 200, Json::object());
    } else {
      Answer(out, s.error());
    }
  });
  Get("/v1/events", [this](const Request& in, Response& out) {
    const std::string text = in.get_param_value("since");
    uint64_t since = 0;
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), since);
    if (!text.empty() && (failed != std::errc() || end != text.data() + text.size())) {
      Answer(out, Invalid("since must be the number of an event"));
      return;
    }
    Json list = Json::array();
    for (const Event& e : events_.Since(since))
      list.push_back({{"seq", e.sequence},
                      {"time", e.time},
                      {"tenant", e.tenant},
                      {"pid", e.pid},
                      {"device", e.device},
                      {"cause", e.cause},
                      {"bytes", e.bytes},
                      {"limit_bytes", e.limit_bytes},
                      {"symbol", e.symbol},
                      {"message", e.message}});
    Answer(out, 200, {{"events", list}});
  });
  Get("/metrics", [this](const Request& in, Response& out) { Metrics(in, out); });
  Post("/v1/shutdown", [this](const Request&, Response& out) {
    Answer(out, 200, Json::object());
    shutdown_();
  });
  set_error_handler([](const Request& in, Response& out) {
    if (!out.body.empty()) return;
    if (out.status == 404)
      Answer(out, NotFound("there is no " + in.method + " " + in.path.substr(0, 100)));
    else
      Answer(out, out.status,
             {{"error", {{"code", "invalid"}, {"message", "not a request of this API"}}}});
  });
  set_exception_handler([](const Request&, Response& out, std::exception_ptr) {
    Answer(out, Internal("a fault of divvyd's own; see its log"));
  });
}

void Server::Metrics(const httplib::Request& in, httplib::Response& out) {
  std::vector<std::string> only;
  for (const auto& [name, value] : in.params)
    if (name == "name[]") only.push_back(value);
  if (const Status s = CheckMetricNames(only, options_.hami_metrics); !s.ok()) {
    Answer(out, s.error());
    return;
  }
  const Figures figures = node_.CollectFigures();
  std::string text = MetricsText(figures, ReadSelf(), only);
  if (options_.hami_metrics) text += HamiMetricsText(figures, HostName(), only);
  out.set_content(std::move(text), "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace

int HttpStatus(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kExists:
      return 409;
    case ErrorCode::kNoRoom:
      return 507;
    case ErrorCode::kUnavailable:
    case ErrorCode::kEnding:
      return 503;
    case ErrorCode::kDenied:
      return 403;
    case ErrorCode::kIo:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

const char* ErrorWord(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalid:
      return "invalid";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kExists:
      return "exists";
    case ErrorCode::kNoRoom:
      return "no_room";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kEnding:
      return "ending";
    case ErrorCode::kDenied:
      return "denied";
    case ErrorCode::kIo:
      return "io";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

Result<std::unique_ptr<Api>> Api::Start(const ApiOptions& options, Node& node, Events& events,
                                        std::function<void()> shutdown) {
  Result<UniqueFd> listener = ListenUnix(options.socket_path, SOCK_STREAM, 0600);
  if (!listener.ok()) return listener.error();
  auto server = std::make_unique<Server>(options, node, events, std::move(shutdown));
  server->Serve(std::move(*listener));
  return std::unique_ptr<Api>(std::move(server));
}

}  // namespace divvy::daemon
