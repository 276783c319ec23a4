using System;
using System.Linq;
using System.Net.Http;
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
            Task.WhenAll(Settings.Peers.Select(peer => ToPeer(peer, message)));

        private async Task ToPeer(string peer, Message message)
        {
            var body = new StringContent(JsonSerializer.Serialize(message), Encoding.UTF8, "application/json");
            try
            {
                using var answer = await Http.PostAsync(peer.TrimEnd('/') + "/relay", body);
                answer.EnsureSuccessStatusCode();
            }
            catch (Exception error) when (error is HttpRequestException || error is OperationCanceledException)
            {
                // A pod that is down misses messages; it must not keep the others from talking.
                _log.LogWarning("relay to {Peer} failed: {Reason}", peer, error.Message);
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
                await ToClients(await JsonSerializer.DeserializeAsync<Message>(context.Request.Body) ?? new Message());
                context.Response.StatusCode = StatusCodes.Status204NoContent;
            }
            catch (JsonException)
            {
                context.Response.StatusCode = StatusCodes.Status400BadRequest;
            }
        }
    }
}
