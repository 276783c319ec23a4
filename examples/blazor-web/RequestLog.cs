using System.Text.Json;

namespace BlazorWeb;

/// <summary>One line of JSON for every request under /_blazor: for tests alone, as it holds connection ids.</summary>
public static class RequestLog
{
    public static void UseRequestLog(this WebApplication app, string file)
    {
        var gate = new Lock();
        app.Use((context, next) =>
        {
            var request = context.Request;
            if (request.Path.StartsWithSegments("/_blazor"))
            {
                var line = JsonSerializer.Serialize(new
                {
                    method = request.Method,
                    path = request.Path.Value,
                    query = request.QueryString.Value,
                    headers = request.Headers.ToDictionary(header => header.Key, header => header.Value.ToArray()),
                });
                lock (gate)
                {
                    File.AppendAllText(file, line + "\n");
                }
            }
            return next(context);
        });
    }
}
