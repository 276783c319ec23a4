using System.IO;
using System.Linq;
using System.Text.Json;
using Microsoft.AspNetCore.Http;

namespace Chat
{
    /// <summary>
    /// Writes every request for a hub as one line of JSON: the tests read here what reached the pod.
    /// It holds connection ids and whatever else a client sent, so it is for tests alone.
    /// </summary>
    public static class RequestLog
    {
        private static readonly object Gate = new object();

        public static void Append(string file, HttpRequest request)
        {
            var line = JsonSerializer.Serialize(new
            {
                method = request.Method,
                path = (request.PathBase + request.Path).Value,
                query = request.QueryString.Value,
                headers = request.Headers.ToDictionary(header => header.Key, header => header.Value.ToArray()),
            });
            lock (Gate)
            {
                File.AppendAllText(file, line + "\n");
            }
        }
    }
}
