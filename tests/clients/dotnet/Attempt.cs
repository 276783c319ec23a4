using System.Diagnostics;
using System.Threading.Channels;
using Microsoft.AspNetCore.SignalR.Client;

namespace DotnetClient;

/// <summary>What `WhoAmI` of examples/chat answers.</summary>
public record Whereabouts
{
    public string? Pod { get; set; }
    public string? ConnectionId { get; set; }
    public string? Transport { get; set; }
}

/// <summary>One connection, from its negotiate to its end.</summary>
internal class Attempt(Options options)
{
    /// <summary>How many numbers a stream carries.</summary>
    private const int Numbers = 50;

    private static readonly HttpClient Gates = new() { Timeout = Timeout.InfiniteTimeSpan };

    private readonly Try _seen = new();

    public async Task<Try> Run()
    {
        var began = Stopwatch.StartNew();
        var connection = Connecting.Build(options, pod => _seen.NegotiatedPod = pod);
        var stopping = false;
        connection.Closed += error =>
        {
            _seen.Cut = stopping ? null : error?.Message ?? "closed by the other side";
            return Task.CompletedTask;
        };
        try
        {
            await Prove(connection).WaitAsync(TimeSpan.FromMilliseconds(options.TryMs));
            _seen.Ok = true;
        }
        catch (Exception error)
        {
            _seen.Error = error.Message;
        }
        _seen.Milliseconds = began.ElapsedMilliseconds;
        if (_seen.Ok)
        {
            await Task.Delay(options.HoldMs);
            await Pass();
        }
        stopping = true;
        try
        {
            await connection.StopAsync().WaitAsync(TimeSpan.FromSeconds(5));
        }
        catch (Exception)
        {
            // What matters has been seen before.
        }
        return _seen;
    }

    /// <summary>The test lets nobody through before it is ready.</summary>
    private Task Pass() => options.Gate == null ? Task.CompletedTask : Gates.GetAsync(options.Gate);

    private async Task Prove(HubConnection connection)
    {
        connection.On("answer", (string question) => $"the answer to {question}");
        await connection.StartAsync();
        var me = await Ask(connection);
        (_seen.AnsweredPod, _seen.ConnectionId, _seen.Transport) = (me.Pod, connection.ConnectionId, me.Transport);
        var text = $"hello {Random.Shared.Next()} äöü";
        Expect("the echo", text, await connection.InvokeAsync<string>("Echo", text));
        for (var round = 0; round < options.Rounds; round++)
        {
            await Pass();
            await Converse(connection);
            Expect("the pod later", me, await Ask(connection));
        }
        if (!options.SkipNegotiation)
        {
            Expect("the connection's id to the hub", connection.ConnectionId, me.ConnectionId);
            Expect("the pod that answered", _seen.NegotiatedPod, me.Pod);
        }
    }

    private static Task<Whereabouts> Ask(HubConnection connection) => connection.InvokeAsync<Whereabouts>("WhoAmI");

    /// <summary>The hub asks back, and numbers come down in a stream and go up again in another, each at once.</summary>
    private static async Task Converse(HubConnection connection)
    {
        Expect("the client result", "the answer to life", await connection.InvokeAsync<string>("AskBack", "life"));
        var up = Channel.CreateUnbounded<int>();
        var sum = connection.InvokeAsync<int>("Sum", up.Reader);
        var expected = 0;
        await foreach (var number in connection.StreamAsync<int>("Count", Numbers))
        {
            Expect("the next number", expected++, number);
            up.Writer.TryWrite(number);
        }
        up.Writer.Complete();
        Expect("how many numbers came", Numbers, expected);
        Expect("the sum", Enumerable.Range(0, Numbers).Sum(), await sum);
    }

    private static void Expect<T>(string what, T expected, T found)
    {
        if (!Equals(expected, found))
        {
            throw new InvalidOperationException($"{what} is {found} and not {expected}");
        }
    }
}
