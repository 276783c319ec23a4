using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.SignalR;
using Microsoft.Extensions.Logging;

namespace Chat
{
    public class Message
    {
        public string User { get; set; }
        public string Text { get; set; }
        public string Pod { get; set; }
    }

    /// <summary>
    /// Carries a message from pod to pod with plain HTTP requests, so that the sample needs no second service. In production
    /// this is the work of a backplane: see `Settings.Redis`. A backplane does not remove the need for affinity: it moves
    /// messages, while a connection still lives on one pod.
    ///
    /// Nobody is asked who they are: `POST /relay` must be reachable from the other pods only
    /// (loopback or the compose network), never through a gateway that strangers reach.
    /// </summary>
    public class Relay
    {
        private static readonly HttpClient Http = new HttpClient { Timeout = Settings.Patience ?? TimeSpan.FromSeconds(2) };

        private readonly IHubContext<ChatHub> _hub;
        private readonly ILogger<Relay> _log;

        public Relay(IHubContext<ChatHub> hub, ILogger<Relay> log)
        {
            _hub = hub;
            _log = log;
        }

        public Task ToClients(Message message) =>
            _hub.Clients.All.SendAsync("message", message.User, message.Text, message.Pod);

        public Task ToPeers(Message message) =>
            Task.WhenAll(Settings.Peers.Select(async peer =>
            {
                var pods = await PodsOf(new Uri(peer.TrimEnd('/') + "/relay"));
                await Task.WhenAll(pods.Select(pod => ToPod(pod, message)));
            }));

        /// <summary>
        /// A name may stand for several pods, this one among them: a service of docker compose does, and a headless one of
        /// Kubernetes. A pod with addresses of both families gets each message once.
        /// </summary>
        private async Task<IEnumerable<Uri>> PodsOf(Uri peer)
        {
            try
            {
                var addresses = await Dns.GetHostAddressesAsync(peer.DnsSafeHost);
                return addresses
                    .Where(address => address.AddressFamily == addresses[0].AddressFamily)
                    .Select(address => new UriBuilder(peer) { Host = address.ToString() }.Uri);
            }
            catch (SocketException error)
            {
                _log.LogWarning("relay to {Peer} failed: {Reason}", peer, error.Message);
                return Enumerable.Empty<Uri>();
            }
        }

        private async Task ToPod(Uri pod, Message message)
        {
            var body = new StringContent(JsonSerializer.Serialize(message), Encoding.UTF8, "application/json");
            try
            {
                using var answer = await Http.PostAsync(pod, body);
                answer.EnsureSuccessStatusCode();
            }
            catch (Exception error) when (error is HttpRequestException || error is OperationCanceledException)
            {
                // A pod that is down misses messages; it must not keep the others from talking.
                _log.LogWarning("relay to {Pod} failed: {Reason}", pod, error.Message);
            }
        }

        /// <summary>Answers `POST /relay`.</summary>
        public async Task Receive(HttpContext context)
        {
            // Asking for JSON makes a browser on another site send a preflight, which is refused.
            if (context.Request.ContentType?.StartsWith("application/json", StringComparison.OrdinalIgnoreCase) != true)
            {
                context.Response.StatusCode = StatusCodes.Status415UnsupportedMediaType;
                return;
            }
            try
            {
                var message = await JsonSerializer.DeserializeAsync<Message>(context.Request.Body) ?? new Message();
                // Its own message comes back where a name stands for this pod, too.
                if (message.Pod != Settings.Pod)
                {
                    await ToClients(message);
                }
                context.Response.StatusCode = StatusCodes.Status204NoContent;
            }
            catch (JsonException)
            {
                context.Response.StatusCode = StatusCodes.Status400BadRequest;
            }
        }
    }
}
