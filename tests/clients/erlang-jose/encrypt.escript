#!/usr/bin/env escript
%% Erlang (and Elixir), `jose`, by the author of the Ruby gem `jose`.

%% snippet begins
encrypt_pin(Pin, Url) ->
    {match, _} = re:run(Pin, "^[0-9]{4}$", [dollar_endonly]),
    Key = fetch_key(Url),
    Header = #{<<"alg">> => <<"RSA-OAEP">>, <<"enc">> => <<"A128CBC-HS256">>, <<"kid">> => maps:get(<<"key_id">>, Key)},
    encrypt_under(jose_jwk:from_map(maps:get(<<"jwk">>, Key)), Header, Pin).

encrypt_under(PublicKey, Header, Pin) ->
    {_, Compact} = jose_jwe:compact(jose_jwk:block_encrypt(Pin, Header, PublicKey)),
    Compact.

fetch_key(Url) ->
    {ok, {{_, 200, _}, _, Body}} = httpc:request(get, {Url, []}, [], [{body_format, binary}]),
    jose:decode(Body).
%% snippet ends

encrypt_as_asked(Pin, Form, Header, Url) ->
    Key = fetch_key(Url),
    PublicKey = case Form of
        <<"pem">> -> jose_jwk:from_pem(maps:get(<<"pkcs8">>, Key));
        _ -> jose_jwk:from_map(maps:get(<<"jwk">>, Key))
    end,
    encrypt_under(PublicKey, (jose:decode(Header))#{<<"kid">> := maps:get(<<"key_id">>, Key)}, Pin).

main([Url]) ->
    {ok, _} = application:ensure_all_started(inets),
    {ok, _} = application:ensure_all_started(jose),
    io:setopts([binary]),
    answer(Url).

answer(Url) ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            [Name, Pin, Form, Header] = binary:split(string:trim(Line, trailing, "\n"), <<"\t">>, [global]),
            Jwe = case Form of
                <<"snippet">> -> encrypt_pin(Pin, Url);
                _ -> encrypt_as_asked(Pin, Form, Header, Url)
            end,
            io:format("~s\t~s~n", [Name, Jwe]),
            answer(Url)
    end.
