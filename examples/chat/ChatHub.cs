using System;
using System.Collections.Generic;
using System.Runtime.CompilerServices;
using System.Threading;
using System.Threading.Tasks;
using Microsoft.AspNetCore.Http.Connections.Features;
using Microsoft.AspNetCore.SignalR;

namespace Chat
{
    public class ChatHub : Hub
    {
        private readonly Relay _relay;

        public ChatHub(Relay relay) => _relay = relay;

        /// <summary>Lets a client see where it is, and by which transport.</summary>
        public Whereabouts WhoAmI() => new Whereabouts
        {
            Pod = Settings.Pod,
            ConnectionId = Context.ConnectionId,
            Transport = Context.Features.Get<IHttpTransportFeature>()?.TransportType.ToString(),
        };

        public string Echo(string text) => text;

        /// <summary>Says something to everybody, on this pod and on the others.</summary>
        public Task Send(string user, string text)
        {
            var message = new Message { User = user, Text = text, Pod = Settings.Pod };
            return Task.WhenAll(_relay.ToClients(message), _relay.ToPeers(message));
        }

        public async IAsyncEnumerable<int> Count(int n, [EnumeratorCancellation] CancellationToken cancelled)
        {
            for (var i = 0; i < n; i++)
            {
                cancelled.ThrowIfCancellationRequested();
                yield return i;
                await Task.Yield();
            }
        }

        /// <summary>Adds up what the caller streams.</summary>
        public async Task<int> Sum(IAsyncEnumerable<int> numbers)
        {
            var sum = 0;
            await foreach (var number in numbers)
            {
                sum += number;
            }
            return sum;
        }

#if NET8_0_OR_GREATER
        /// <summary>Asks the caller something, and returns its answer.</summary>
        public Task<string> AskBack(string question) =>
            Clients.Caller.InvokeAsync<string>("answer", question, Context.ConnectionAborted);
#endif

        /// <summary>Ends the caller's connection from the server's side.</summary>
        public void Abort() => Context.Abort();
    }

    public class Whereabouts
    {
        public string Pod { get; set; }
        public string ConnectionId { get; set; }
        public string Transport { get; set; }
    }
}
