// Any bytes on the API's socket, before its handlers, guard and node: each request is answered in
// HTTP with a reason, or the connection ends; what the API says of itself stays JSON; and divvyd's
// own faults (500) never come of what somebody sends. The devices are a table; sockets, threads,
// segments and the arbiter are the daemon's own, in a folder that goes with the process.
#include <httplib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "src/base/paths.h"
#include "src/daemon/api.h"
#include "src/daemon/history.h"
#include "src/daemon/node.h"

namespace {
using namespace divvy;  // NOLINT
using Json = nlohmann::json;

void Check(bool good, const char* what, const std::string& said) {
  if (good) return;
  std::fprintf(stderr, "%s:\n%.2000s\n", what, said.c_str());
  std::abort();
}

// Two devices on which nothing runs.
class Table : public device::Source {
 public:
  Table() {
    for (unsigned i = 0; i < 2; ++i) {
      device::Info info{.index = i, .name = "a GPU", .pci_bus_id = "0:1", .total = 80_GiB};
      info.uuid.bytes[0] = static_cast<uint8_t>(i + 1);
      devices_.push_back(info);
    }
  }
  const std::vector<device::Info>& devices() const override { return devices_; }
  const std::string& driver_version() const override { return version_; }
  Result<device::Reading> Read(unsigned) override {
    return device::Reading{.total = 80_GiB, .free = 80_GiB, .lists_processes = true};
  }
  std::vector<device::ProcessUse> Uses(unsigned) override { return {}; }
  bool WatchFaults() override { return false; }
  std::optional<device::Fault> WaitFault(std::chrono::milliseconds) override { return {}; }

 private:
  std::vector<device::Info> devices_;
  std::string version_ = "580.00";
};

class Server {
 public:
  Server() : dir_("/tmp/divvy-api-fuzz-" + std::to_string(::getpid())) {
    std::filesystem::create_directories(dir_);
    std::filesystem::permissions(dir_, std::filesystem::perms::owner_all);
    Result<std::unique_ptr<daemon::Loop>> loop = daemon::Loop::Create();
    Check(loop.ok(), "no loop", loop.ok() ? "" : loop.error().message);
    loop_ = std::move(*loop);
    node_ = std::make_unique<daemon::Node>(daemon::NodeOptions{.machine_dir = dir_}, table_, *loop_,
                                           events_, [](bool) {});
    Check(node_->Start().ok(), "the node does not start", dir_);
    auto api =
        daemon::Api::Start({.socket_path = socket(), .log_dropped = [] { return uint64_t{0}; }},
                           *node_, events_, history_, [] {});
    Check(api.ok(), "the API does not start", api.ok() ? "" : api.error().message);
    api_ = std::move(*api);
  }
  ~Server() {
    api_.reset();
    node_.reset();
    std::filesystem::remove_all(dir_);
  }
  std::string socket() const { return dir_ + "/divvyd.sock"; }
  // As after a start; what was made before does not pile up.
  void Clear() {
    const Json all = node_->TenantsJson("").value();
    for (const Json& tenant : all["tenants"])
      static_cast<void>(node_->DeleteTenant(tenant["name"], true));
  }

 private:
  const std::string dir_;
  Table table_;
  daemon::Events events_;
  daemon::UseHistory history_;
  std::unique_ptr<daemon::Loop> loop_;
  std::unique_ptr<daemon::Node> node_;
  std::unique_ptr<daemon::Api> api_;
};

// All that comes back until the other end closes.
std::string Say(const std::string& path, const uint8_t* data, size_t size) {
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX};
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  Check(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
        "no connection", std::strerror(errno));
  for (size_t sent = 0; sent < size;) {
    const ssize_t n = ::send(fd.get(), data + sent, size - sent, MSG_NOSIGNAL);
    if (n <= 0) break;  // it has heard enough
    sent += static_cast<size_t>(n);
  }
  ::shutdown(fd.get(), SHUT_WR);
  std::string answer;
  char part[4096];
  for (ssize_t n; (n = ::recv(fd.get(), part, sizeof part, 0)) > 0;)
    answer.append(part, static_cast<size_t>(n));
  return answer;
}

// One answer after another; a watch's frames come after its head, and are not looked into.
void CheckAnswers(const std::string& all) {
  for (size_t at = 0; at < all.size();) {
    const size_t head_end = all.find("\r\n\r\n", at);
    Check(all.compare(at, 9, "HTTP/1.1 ") == 0 && head_end != std::string::npos, "not HTTP", all);
    const std::string head = all.substr(at, head_end - at);
    const int status = std::atoi(head.c_str() + 9);
    Check(status >= 100 && status < 600 && status != 500, "a fault of its own", all);
    const size_t length_at = head.find("Content-Length: ");
    if (length_at == std::string::npos) return;
    const size_t length = std::strtoul(head.c_str() + length_at + 16, nullptr, 10);
    const std::string body = all.substr(head_end + 4, length);
    at = head_end + 4 + length;
    if (status == 204 || status == 304 || head.find("application/json") == std::string::npos)
      continue;
    // Of a HEAD nothing follows, whatever length it tells.
    if (body.empty() || body.starts_with("HTTP/1.1 ")) return;
    const Json parsed = Json::parse(body, nullptr, false);
    Check(!parsed.is_discarded(), "not JSON", all);
    if (status >= 400)
      Check(!parsed["error"]["message"].get<std::string>().empty(), "no reason", all);
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Server server;
  CheckAnswers(Say(server.socket(), data, size));
  server.Clear();
  return 0;
}
