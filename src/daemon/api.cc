#include "src/daemon/api.h"

#include <fcntl.h>
#include <httplib.h>
#include <limits.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "src/base/error_word.h"
#include "src/daemon/metrics.h"
#include "src/daemon/socket.h"
#include "src/daemon/watch.h"
#include "src/daemon/watch_frame.h"
#include "src/daemon/web_assets.h"
#include "src/daemon/web_guard.h"
#include "src/daemon/web_server.h"

namespace divvy::daemon {
namespace {

using Json = nlohmann::json;

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
  response.status = HttpStatus(error.code);
  response.set_content(ErrorBody(error), "application/json");
}

void Answer(httplib::Response& response, const Result<Json>& result, int status = 200) {
  if (result.ok()) {
    Answer(response, status, *result);
  } else {
    Answer(response, result.error());
  }
}

class Served : public Api {
 public:
  Served(const ApiOptions& options, Node& node, Events& events, const UseHistory& history,
         std::function<void()> shutdown)
      : options_(options),
        node_(node),
        events_(events),
        history_(history),
        shutdown_(std::move(shutdown)),
        watch_([&node] { return node.CollectFigures(); }, events) {}
  ~Served() override {
    servers_.clear();  // no request from here on
    events_.OnAdd(nullptr);
  }
  Status Watch() {
    events_.OnAdd([this] { watch_.Wake(); });
    return watch_.Start();
  }
  Status Serve(UniqueFd listener, const Door& door, std::unique_ptr<TlsContext> tls = nullptr) {
    servers_.push_back(std::make_unique<WebServer>(door, std::move(tls)));
    Routes(*servers_.back());
    return servers_.back()->Serve(std::move(listener));
  }
  Status ServeTcp();

 private:
  void Routes(WebServer& server);
  void Metrics(const httplib::Request& in, httplib::Response& out);
  void StartWatch(const httplib::Request& in, httplib::Response& out);
  void ListEvents(const httplib::Request& in, httplib::Response& out);

  const ApiOptions options_;
  std::string tcp_;  // the address that is listened on; "" = none
  Node& node_;
  Events& events_;
  const UseHistory& history_;
  std::function<void()> shutdown_;
  daemon::Watch watch_;
  std::vector<std::unique_ptr<WebServer>> servers_;
};

void Served::Routes(WebServer& server) {
  using httplib::Request;
  using httplib::Response;
  server.set_keep_alive_max_count(1000);
  for (const WebAsset& asset : WebAssets())
    server.Get(asset.path, [&asset](const Request&, Response& out) {
      // Nothing from elsewhere runs in the page, and no other page holds it in a frame.
      out.set_header("Content-Security-Policy",
                     "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
                     "frame-ancestors 'none'; base-uri 'none'; form-action 'none'");
      out.set_header("X-Content-Type-Options", "nosniff");
      out.set_header("Referrer-Policy", "no-referrer");
      out.set_header("Cache-Control", "no-cache");
      out.set_content(asset.body.data(), asset.body.size(), asset.type);
    });
  server.Get("/v1/status", [this](const Request&, Response& out) {
    Json status = node_.StatusJson();
    status["tcp"] = tcp_;
    status["tls"] = options_.tls.Any();
    Answer(out, 200, status);
  });
  server.Get("/v1/devices",
             [this](const Request&, Response& out) { Answer(out, 200, node_.DevicesJson()); });
  server.Patch("/v1/devices/([^/]+)", [this](const Request& in, Response& out) {
    const Result<DevicePatch> patch = ParseDevicePatch(in.body);
    Answer(out, patch.ok() ? node_.PatchDevice(in.matches[1], *patch) : patch.error());
  });
  server.Get("/v1/tenants",
             [this](const Request&, Response& out) { Answer(out, node_.TenantsJson("")); });
  server.Get("/v1/tenants/([^/]+)", [this](const Request& in, Response& out) {
    Answer(out, node_.TenantsJson(in.matches[1]));
  });
  server.Get("/v1/tenants/([^/]+)/why",
             [this](const Request& in, Response& out) { Answer(out, node_.Why(in.matches[1])); });
  server.Post("/v1/tenants", [this](const Request& in, Response& out) {
    const Result<TenantRequest> request = ParseTenantRequest(in.body);
    Answer(out, request.ok() ? node_.CreateTenant(*request) : request.error(), 201);
  });
  server.Patch("/v1/tenants/([^/]+)", [this](const Request& in, Response& out) {
    const Result<TenantPatch> patch = ParseTenantPatch(in.body);
    Answer(out, patch.ok() ? node_.PatchTenant(in.matches[1], *patch) : patch.error());
  });
  server.Delete("/v1/tenants/([^/]+)", [this](const Request& in, Response& out) {
    const Status s = node_.DeleteTenant(in.matches[1], in.get_param_value("force") == "1");
    if (s.ok()) {
      Answer(out, 200, Json::object());
    } else {
      Answer(out, s.error());
    }
  });
  server.Post("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const Result<uint64_t> for_ms = ParseRecording(in.body);
    Answer(out, for_ms.ok() ? node_.StartRecording(in.matches[1], *for_ms) : for_ms.error());
  });
  server.Get("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const std::string text = in.get_param_value("since");
    uint64_t since = 0;
    std::from_chars(text.data(), text.data() + text.size(), since);
    Answer(out, node_.Records(in.matches[1], since));
  });
  server.Delete("/v1/tenants/([^/]+)/recording", [this](const Request& in, Response& out) {
    const Status s = node_.StopRecording(in.matches[1]);
    if (s.ok()) {
      Answer(out, 200, Json::object());
    } else {
      Answer(out, s.error());
    }
  });
  server.Get("/v1/events", [this](const Request& in, Response& out) { ListEvents(in, out); });
  server.Get("/v1/watch", [this](const Request& in, Response& out) { StartWatch(in, out); });
  server.Get("/v1/history", [this](const Request& in, Response& out) {
    Answer(out, history_.ToJson(in.get_param_value("span")));
  });
  server.Get("/metrics", [this](const Request& in, Response& out) { Metrics(in, out); });
  server.Post("/v1/shutdown", [this](const Request&, Response& out) {
    Answer(out, 200, Json::object());
    shutdown_();
  });
  server.set_error_handler([](const Request& in, Response& out) {
    if (!out.body.empty()) return;
    if (out.status == 404)
      Answer(out, NotFound("there is no " + in.method + " " + in.path.substr(0, 100)));
    else
      Answer(out, out.status,
             {{"error", {{"code", "invalid"}, {"message", "not a request of this API"}}}});
  });
  server.set_exception_handler([](const Request&, Response& out, std::exception_ptr) {
    Answer(out, Internal("a fault of divvyd's own; see its log"));
  });
}

void Served::ListEvents(const httplib::Request& in, httplib::Response& out) {
  const std::string text = in.get_param_value("since");
  uint64_t since = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), since);
  if (!text.empty() && (failed != std::errc() || end != text.data() + text.size())) {
    Answer(out, Invalid("since must be the number of an event"));
    return;
  }
  Json list = Json::array();
  for (const Event& e : events_.Since(since)) list.push_back(EventJson(e));
  Answer(out, 200, {{"events", std::move(list)}});
}

void Served::StartWatch(const httplib::Request& in, httplib::Response& out) {
  const std::string last = in.get_header_value("Last-Event-ID");  // of one who comes again
  const Result<WatchTerms> terms = ParseWatchTerms(
      in.get_param_value("interval_ms"), last.empty() ? in.get_param_value("since") : last);
  if (!terms.ok()) {
    Answer(out, terms.error());
    return;
  }
  if (!watch_.Reserve()) {
    Answer(out, Unavailable("there are " + std::to_string(Watch::kMostWatchers) +
                            " watchers already; try again later, or ask for /v1/tenants"));
    return;
  }
  // The answer is its head; the rest is written by the watch's own thread.
  out.set_header("Cache-Control", "no-store");
  out.set_header("Connection", "close");
  out.set_content_provider("text/event-stream", [](size_t, httplib::DataSink& sink) {
    sink.done();
    return true;
  });
  WebServer::TakeConnection([this, terms = *terms](Connection connection) {
    if (connection.valid())
      watch_.Add(std::move(connection), terms);
    else
      watch_.Release();
  });
}

Status Served::ServeTcp() {
  Door door{.certificate = !options_.tls.client_ca.empty()};
  if (!options_.token_file.empty()) {
    Result<std::string> token = ReadToken(options_.token_file);
    if (!token.ok()) return token.error();
    door.token = *token;
  }
  std::unique_ptr<TlsContext> tls;
  if (options_.tls.Any()) {
    auto made = TlsContext::Make(options_.tls);
    if (!made.ok()) return made.error();
    tls = std::move(*made);
  }
  if (door.token.empty() && !door.certificate)  // never open to whoever comes
    return Invalid("--api-tcp needs --api-token-file or --api-tls-client-ca");
  Result<UniqueFd> listener = ListenTcp(options_.tcp);
  if (!listener.ok()) return listener.error();
  tcp_ = BoundAddress(listener->get());
  return Serve(std::move(*listener), door, std::move(tls));
}

void Served::Metrics(const httplib::Request& in, httplib::Response& out) {
  std::vector<std::string> only;
  for (const auto& [name, value] : in.params)
    if (name == "name[]") only.push_back(value);
  if (const Status s = CheckMetricNames(only, options_.hami_metrics); !s.ok()) {
    Answer(out, s.error());
    return;
  }
  const Figures figures = node_.CollectFigures();
  SelfFigures self = ReadSelf();
  self.watchers = watch_.watchers();
  self.watchers_dropped = watch_.dropped();
  self.log_dropped = options_.log_dropped();
  std::string text = MetricsText(figures, self, only);
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

std::string ErrorBody(const Error& error) {
  const Json body = {{"error", {{"code", ErrorWord(error.code)}, {"message", error.message}}}};
  return body.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<std::unique_ptr<Api>> Api::Start(const ApiOptions& options, Node& node, Events& events,
                                        const UseHistory& history, std::function<void()> shutdown) {
  auto api = std::make_unique<Served>(options, node, events, history, std::move(shutdown));
  if (Status s = api->Watch(); !s.ok()) return s.error();
  if (!options.tcp.empty())
    if (Status s = api->ServeTcp(); !s.ok()) return s.error();
  // The socket last: who sees it finds everything there.
  Result<UniqueFd> listener = ListenUnix(options.socket_path, SOCK_STREAM, 0600);
  if (!listener.ok()) return listener.error();
  if (Status s = api->Serve(std::move(*listener), Door{}); !s.ok()) return s.error();
  return std::unique_ptr<Api>(std::move(api));
}

}  // namespace divvy::daemon
