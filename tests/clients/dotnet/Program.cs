// Drives Microsoft.AspNetCore.SignalR.Client: dotnet dotnet.dll '{"url": "http://127.0.0.1:8080", "hub": "/chat", …}'
// The options are those of `DotnetClient` in tests/testbed/src/clients/dotnet.rs; one JSON report goes to standard output.
// What it does is what tests/clients/attempt.mjs does in JavaScript.
//
// With `certificate` instead of options it makes a certificate for this machine, and prints that and its key.
using System.Text.Json;
using System.Text.Json.Serialization;
using DotnetClient;
using Microsoft.AspNetCore.Http.Connections;

if (args[0] == "certificate")
{
    Console.WriteLine(SelfSigned.Pem());
    return;
}

var json = new JsonSerializerOptions(JsonSerializerDefaults.Web) { Converters = { new JsonStringEnumConverter() } };
var options = JsonSerializer.Deserialize<Options>(args[0], json)!;
var tries = new Try[options.Connects];
var next = -1;

async Task Work()
{
    for (var number = Interlocked.Increment(ref next); number < tries.Length; number = Interlocked.Increment(ref next))
    {
        tries[number] = await new Attempt(options).Run();
    }
}

await Task.WhenAll(Enumerable.Range(0, options.Parallel).Select(_ => Task.Run(Work)));
Console.WriteLine(JsonSerializer.Serialize(
    new { tried = tries.Length, connected = tries.Count(one => one.Ok), tries },
    json));

namespace DotnetClient
{
    internal record Options(
        string Url,
        string Hub,
        HttpTransportType Transport,
        string Protocol,
        string Cookies,
        int Connects,
        int Parallel,
        int HoldMs,
        int TryMs,
        bool SkipNegotiation,
        bool StatefulReconnect,
        Dictionary<string, string> Headers,
        int Rounds,
        string? Gate,
        string HttpVersion,
        bool Compression);

    internal class Try
    {
        public bool Ok { get; set; }
        public string? NegotiatedPod { get; set; }
        public string? AnsweredPod { get; set; }
        public string? ConnectionId { get; set; }
        public string? Transport { get; set; }
        public string? Error { get; set; }
        public string? Cut { get; set; }
        public long Milliseconds { get; set; }
    }
}
