package queue

// ReasonDoc says in a sentence what a reason code means, and what to do.
type ReasonDoc struct {
	Code, Meaning, Next string
}

// ReasonDocs documents every reason code, in the order of docs/reasons.md.
var ReasonDocs = []ReasonDoc{
	{ReasonSent, "A next hop has accepted the message.", "Nothing. The server's reply is in the log; it often carries the id of its own queue."},
	{ReasonExpired, "The message was tried until `delivery.retry.expire_after` and is given up; the sender has a report.", "Look at the last status before the expiry: it says what was in the way."},

	{ReasonRouteHold, "A route of the operator says `action: hold` for this recipient.", "`srvrelay queue release` sends the message past the route; when the routes change, it is looked at anew."},
	{ReasonOperatorHold, "The operator holds the message (`srvrelay queue hold`).", "`srvrelay queue release` lets it go."},
	{ReasonAnomalyHold, "Who submitted the message sends far more than they ever did, or to many addresses that do not exist, so that a stolen password is likely (`submission.anomaly`).", "`srvrelay submission list` says who and why. Look at the mail: `srvrelay queue delete --user NAME` or `release --user NAME`; `srvrelay submission release NAME` lets new mail of the user go out again."},
	{ReasonOperatorFailed, "The operator has given the message up (`srvrelay queue fail`).", "Nothing: the sender has a report with the operator's words."},
	{ReasonOperatorDeleted, "The operator has removed the message (`srvrelay queue delete`).", "Nothing. Nobody was told."},

	{ReasonConnectRefused, "The server's address answers, but nothing listens on that port.", "Start the server, or correct the port in its SRV record. The target is probed; mail goes out by itself when it is back."},
	{ReasonConnectTimeout, "No answer to the connection request: the host is off, or a firewall drops it.", "Try `nc -v ADDRESS PORT` from the relay. Port 25 out of home networks and clouds is often blocked: use another port by SRV."},
	{ReasonConnectFailed, "The network has no way to the address (no route, unreachable, reset).", "Look at the relay's own network; IPv6 without a route shows like this."},
	{ReasonBanner, "The server refused the connection with its first words.", "Its words are quoted. It may not know this relay's address, or be overloaded; the next target was tried."},
	{ReasonGreeting, "The server refused EHLO and HELO.", "Check that `hostname` is a full name that resolves to this relay."},
	{ReasonTimeout, "The server did not answer in time.", "It is overloaded or hangs. The next target was tried; it is tried again by the schedule."},
	{ReasonClosed, "The server closed the connection before the message was accepted.", "Look into the server's log for the same time. Nothing is lost; it is tried again."},
	{ReasonProtocol, "What answers is not an SMTP server, or it broke the protocol.", "Check the port in the SRV record."},
	{ReasonTLS, "TLS could not be started.", "With TLS `may` the relay tries again in clear text at once; otherwise look at the server's certificate and TLS versions."},
	{ReasonRejected, "The server refused this sender, recipient or message for good.", "Its words are quoted in the report to the sender."},
	{ReasonTempReply, "The server put this message off for now: greylisting, a full mailbox, a limit.", "Nothing: it is tried again by the schedule."},
	{ReasonWantsAuth, "The server wants a password before it takes mail (530): it is a submission server, not a mail exchanger.", "If all SRV targets say so, MX is used. The domain's owner should publish a port that takes mail from strangers."},
	{ReasonReplyLost, "The connection broke after the whole message was sent and before the server's last reply: it may have been delivered.", "Nothing: it is sent again to the same server first. The recipient may get it twice; it is never lost."},
	{ReasonNo8BitMIME, "The message has 8-bit text and no server of the domain takes that (8BITMIME).", "The sender's program should encode it (quoted-printable or base64)."},
	{ReasonNoSMTPUTF8, "The message needs SMTPUTF8 and no server of the domain offers it.", "Use an ASCII address."},
	{ReasonTooBig, "The message is larger than every server of the domain takes.", "Send a link instead."},
	{ReasonNotCalled, "The route says `atrn:`, and the home server is not connected to fetch its mail.", "See whether it runs and why it does not connect: its log, and `srvrelay doctor` there. The mail goes out at the moment it calls."},
	{ReasonTargetBusy, "All connections that the target gets are in use.", "Nothing: it goes out when one is free. `delivery.connections_per_target` is the bound."},
	{ReasonInternal, "Something in the relay itself went wrong; the log has it.", "Please report it with the log line."},

	{ReasonSRV, "SRV records name the targets.", "Nothing."},
	{ReasonMX, "There are no SRV records; MX records name the targets.", "Nothing."},
	{ReasonAddress, "There are neither SRV nor MX records; the domain's own address is the target.", "Nothing."},
	{ReasonLiteral, "The recipient's domain is an address in brackets.", "Nothing."},
	{ReasonNullSRV, "The domain's only SRV record says \".\": it takes no mail (RFC 2782).", "The address is wrong. Is the domain yours: correct the record, or write a route."},
	{ReasonNullMX, "The domain's null MX says that it takes no mail (RFC 7505).", "The address is wrong. Is the domain yours: correct its MX record, or write a route."},
	{ReasonNoSuchDomain, "The recipient's domain does not exist.", "Look for a typing error in the address."},
	{ReasonNoAddress, "No target of the domain has an address.", "The domain's owner must publish A or AAAA records for the names in its SRV or MX records."},
	{ReasonNoSRV, "The domain has no SRV records, and `delivery.mx_fallback` is off.", "Set `mx_fallback: true`, or have the domain publish SRV records."},
	{ReasonDNSFailed, "The DNS gave no usable answer (SERVFAIL, REFUSED, timeout, nonsense). That says nothing about the domain, so nothing else is tried.", "Ask your resolver with `dig`; check `dns.servers`. It is tried again by itself."},
	{ReasonSRVUnanswered, "Look-ups of SRV records have been failing for long, and none was ever seen for the domain: MX is used.", "The domain's name servers drop SRV questions; tell its owner."},
	{ReasonBadDomain, "The recipient's domain cannot be a domain name.", "Correct the address."},
	{ReasonSelf, "The target is one of our own listeners or `public_addresses`.", "That is as it should be for a backup relay; if the target is another machine behind the same address, it needs another port."},
	{ReasonWorseThanSelf, "The target has the same or a worse priority than our own record: mail must go towards better ones only.", "Nothing."},
	{ReasonLoop, "The records lead to ourselves and to nothing better.", "For a home server, publish a record with a better priority that names it. For other domains, the record is wrong."},
	{ReasonDuplicate, "The same address and port is in the plan already.", "Nothing."},
	{ReasonLimit, "The plan was cut: more records, targets or addresses than are used.", "Nothing; the best ones are in the plan."},
	{ReasonRootTarget, "A \".\" target beside other records means nothing and is ignored.", "The domain's owner should remove it."},

	{ReasonRoute, "A route of the configuration names the hosts.", "Nothing."},
	{ReasonRouteReject, "A route of the configuration refuses this mail.", "If it is not meant, change the route and reload."},
	{ReasonNoHome, "The route says `atrn:`, and no user may call for the mail of the domain.", "Add the domain to an entry of `homes`."},
	{ReasonRouteGone, "The routes were changed while the attempt began.", "Nothing: it is tried again by the new routes."},
	{ReasonAuthFailed, "The smarthost does not accept the name and password (or token) of the route, wants some that the route does not have, or did not prove that it knows the password itself (SCRAM).", "Correct `username` and `password_file`, or what gives the token, and run `srvrelay reload`; the mail waits. If the password is right and the server offers SCRAM, try `auth: password`."},

	{ReasonEgressAddress, "DNS names a private, loopback or reserved address, which a stranger's record must not make the relay connect to.", "If it is yours and meant, add the line that `srvrelay explain` prints to `delivery.egress.allow`."},
	{ReasonEgressPort, "DNS names the port of another service.", "If it is meant, add the port to `delivery.egress.allow_ports`."},
	{ReasonEgressOwn, "DNS names an address of this machine for a domain that is not in `relay_domains`.", "For a home server behind a forwarded port, add its domain to `relay_domains`."},
	{ReasonEgressRate, "The domain's records have caused too many connects, or too many failed ones within a minute; the rest waits.", "Nothing: what was not tried comes first the next time."},
}
