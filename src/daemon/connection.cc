#include "src/daemon/connection.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>

namespace divvy::daemon {
namespace {

std::string TlsError() {
  char text[256] = "unknown error";
  if (const unsigned long code = ::ERR_get_error(); code != 0)
    ::ERR_error_string_n(code, text, sizeof text);
  ::ERR_clear_error();
  return text;
}

}  // namespace

Connection::Connection(UniqueFd fd, ssl_ctx_st* context)
    : fd_(std::move(fd)), ssl_(::SSL_new(context)) {
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  if (ssl_ == nullptr || ::SSL_set_fd(ssl_.get(), fd_.get()) != 1) fd_.reset();
}

void Connection::FreeSsl::operator()(ssl_st* ssl) const { ::SSL_free(ssl); }

// OpenSSL's result as errno would have it; `to_poll` is what it waits for.
ssize_t Connection::Answer(int result, short& to_poll) const {
  if (result > 0) return result;
  const int why = ::SSL_get_error(ssl_.get(), result);
  ::ERR_clear_error();
  if (why == SSL_ERROR_ZERO_RETURN) return 0;
  const bool again = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
  if (again) to_poll = why == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  errno = again ? EAGAIN : ECONNRESET;
  return -1;
}

ssize_t Connection::Receive(void* to, size_t size) {
  if (ssl_ == nullptr) return ::recv(fd_.get(), to, size, MSG_DONTWAIT);
  to_receive_ = POLLIN;
  return Answer(::SSL_read(ssl_.get(), to, static_cast<int>(std::min<size_t>(size, INT_MAX))),
                to_receive_);
}

ssize_t Connection::Send(const void* from, size_t size) {
  if (ssl_ == nullptr) return ::send(fd_.get(), from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  to_send_ = POLLOUT;
  return Answer(::SSL_write(ssl_.get(), from, static_cast<int>(std::min<size_t>(size, INT_MAX))),
                to_send_);
}

bool Connection::Pending() const { return ssl_ != nullptr && ::SSL_pending(ssl_.get()) > 0; }

int Connection::Handshake(short& events) {
  if (ssl_ == nullptr) return 1;
  const int result = ::SSL_accept(ssl_.get());
  if (result == 1) return 1;
  const int why = ::SSL_get_error(ssl_.get(), result);
  ::ERR_clear_error();
  events = why == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? 0 : -1;
}

void Connection::Finish() {
  if (ssl_ != nullptr) ::SSL_shutdown(ssl_.get());
  ::ERR_clear_error();
  ::shutdown(fd_.get(), SHUT_WR);
}

void TlsContext::FreeContext::operator()(ssl_ctx_st* context) const { ::SSL_CTX_free(context); }

Result<std::unique_ptr<TlsContext>> TlsContext::Make(const TlsFiles& files) {
  auto tls = std::make_unique<TlsContext>();
  tls->context_.reset(::SSL_CTX_new(::TLS_server_method()));
  ssl_ctx_st* context = tls->get();
  if (context == nullptr) return Internal("OpenSSL: " + TlsError());
  ::SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  // No tickets: a session that is taken up again would need a context id, and skips the check of
  // the client's certificate.
  ::SSL_CTX_set_options(
      context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
  ::SSL_CTX_set_num_tickets(context, 0);
  // A frame that could not be sent whole is sent again from wherever it then lies.
  ::SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
  ::SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  const auto bad = [](const char* option, const std::string& file) {
    return Invalid(std::string(option) + " " + file + ": " + TlsError());
  };
  if (::SSL_CTX_use_certificate_chain_file(context, files.certificate.c_str()) != 1)
    return bad("--api-tls-cert", files.certificate);
  if (::SSL_CTX_use_PrivateKey_file(context, files.key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      ::SSL_CTX_check_private_key(context) != 1)
    return bad("--api-tls-key", files.key);
  if (files.client_ca.empty()) return tls;
  STACK_OF(X509_NAME)* names = ::SSL_load_client_CA_file(files.client_ca.c_str());
  if (names == nullptr ||
      ::SSL_CTX_load_verify_locations(context, files.client_ca.c_str(), nullptr) != 1)
    return bad("--api-tls-client-ca", files.client_ca);
  ::SSL_CTX_set_client_CA_list(context, names);  // owns them now
  ::SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return tls;
}

}  // namespace divvy::daemon
