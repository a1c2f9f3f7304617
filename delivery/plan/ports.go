package plan

// mailPorts are the ports of SMTP (RFC 5321) and submission (RFC 6409, 8314).
var mailPorts = [...]uint16{25, 465, 587}

// firstFreePort begins the ports that anybody may choose for a mail server.
const firstFreePort = 1024

// otherServices are well-known services above port 1023 that are not mail
// transfer: speaking SMTP to them is useless at best, and at worst they take a
// line of a message for a command. Nothing is listed above 32767: systems hand
// out ports from there, so that a number says little about the service.
var otherServices = map[uint16]string{
	// Databases and caches.
	1433: "Microsoft SQL Server", 1434: "Microsoft SQL Server", 1521: "Oracle", 1526: "Oracle", 1527: "Derby",
	1583: "Pervasive", 1972: "InterSystems IRIS", 2483: "Oracle", 2484: "Oracle", 3050: "Firebird", 3306: "MySQL",
	4100: "Sybase", 5000: "Sybase", 5432: "PostgreSQL", 5433: "PostgreSQL", 5984: "CouchDB", 6379: "redis", 6380: "redis",
	6381: "redis", 6432: "PgBouncer", 6446: "MySQL", 6447: "MySQL", 7000: "Cassandra", 7199: "Cassandra",
	7473: "Neo4j", 7474: "Neo4j", 7687: "Neo4j", 8086: "InfluxDB", 8087: "Riak", 8091: "Couchbase", 8092: "Couchbase",
	8093: "Couchbase", 8529: "ArangoDB", 9042: "Cassandra", 9160: "Cassandra", 11207: "Couchbase", 11210: "Couchbase",
	11211: "memcached", 16379: "redis", 19530: "Milvus", 26257: "CockroachDB", 26379: "redis",
	27017: "MongoDB", 27018: "MongoDB", 27019: "MongoDB", 27020: "MongoDB", 28015: "RethinkDB", 28017: "MongoDB", 29015: "RethinkDB",

	// Search engines and vector stores.
	6333: "Qdrant", 6334: "Qdrant", 7700: "Meilisearch", 8108: "Typesense", 8983: "Solr", 9200: "Elasticsearch",
	9300: "Elasticsearch", 9306: "Sphinx", 9312: "Sphinx", 5601: "Kibana", 11434: "Ollama",

	// Message queues and brokers.
	1414: "IBM MQ", 1883: "MQTT", 4150: "NSQ", 4151: "NSQ", 4222: "NATS", 4369: "epmd", 5671: "AMQP", 5672: "AMQP",
	6222: "NATS", 6650: "Pulsar", 8161: "ActiveMQ", 8222: "NATS", 8883: "MQTT", 9092: "Kafka", 9093: "Kafka", 11300: "beanstalkd",
	15672: "RabbitMQ", 25672: "RabbitMQ",

	// Container and cluster control.
	2181: "ZooKeeper", 2375: "Docker", 2376: "Docker", 2377: "Docker Swarm", 2379: "etcd", 2380: "etcd", 2888: "ZooKeeper",
	3888: "ZooKeeper", 4243: "Docker", 4505: "Salt", 4506: "Salt", 4646: "Nomad", 4647: "Nomad", 4648: "Nomad", 5050: "Mesos",
	6443: "Kubernetes", 8001: "Kubernetes", 8140: "Puppet", 8200: "Vault", 8201: "Vault", 8300: "Consul", 8301: "Consul",
	8302: "Consul", 8500: "Consul", 8501: "Consul", 8502: "Consul", 8600: "Consul", 9345: "RKE2", 10248: "kubelet", 10250: "kubelet",
	10255: "kubelet", 10256: "Kubernetes", 10257: "Kubernetes", 10259: "Kubernetes", 16443: "Kubernetes",

	// Proxies, and web servers that listen where proxies do.
	1080: "SOCKS", 3000: "web applications", 3128: "HTTP proxies", 8000: "HTTP", 8006: "Proxmox", 8008: "HTTP", 8009: "AJP", 8080: "HTTP proxies",
	8081: "HTTP proxies", 8088: "HTTP", 8118: "Privoxy", 8123: "HTTP proxies", 8443: "HTTPS", 8834: "Nessus", 8888: "HTTP proxies",
	9000: "web applications", 9001: "web applications", 9050: "Tor", 9051: "Tor", 9150: "Tor", 9151: "Tor", 9443: "HTTPS",
	10000: "Webmin", 32400: "Plex",

	// Printers and remote desktops.
	1494: "Citrix", 2598: "Citrix", 3283: "Apple Remote Desktop", 3389: "Remote Desktop", 4172: "PCoIP", 4899: "Radmin",
	5631: "pcAnywhere", 5800: "VNC", 5801: "VNC", 5900: "VNC", 5901: "VNC", 5902: "VNC", 5903: "VNC", 5904: "VNC", 5905: "VNC", 5938: "TeamViewer",
	6000: "X11", 6001: "X11", 6002: "X11", 6003: "X11", 6004: "X11", 6005: "X11", 6006: "X11", 6007: "X11",
	9100: "printers", 9101: "printers", 9102: "printers", 9103: "printers", 9104: "printers", 9105: "printers", 9106: "printers", 9107: "printers",

	// Remote control, management, debuggers.
	1098: "Java RMI", 1099: "Java RMI", 2082: "cPanel", 2083: "cPanel", 2086: "cPanel", 2087: "cPanel", 2222: "SSH", 4444: "JBoss", 4445: "JBoss",
	4848: "GlassFish", 5005: "Java debuggers", 5985: "WinRM", 5986: "WinRM", 7001: "WebLogic", 7002: "WebLogic", 8291: "RouterOS",
	8686: "GlassFish", 8728: "RouterOS", 8729: "RouterOS", 9229: "Node.js debuggers", 9990: "WildFly",

	// Monitoring and logging.
	3493: "NUT", 4317: "OpenTelemetry", 4318: "OpenTelemetry", 4949: "Munin", 5044: "Logstash", 5666: "NRPE", 6514: "syslog", 8125: "statsd",
	8126: "statsd", 9090: "Prometheus", 9091: "Prometheus", 9600: "Logstash", 10050: "Zabbix", 10051: "Zabbix", 12201: "Graylog", 24224: "Fluentd",

	// Files, version control, storage.
	2049: "NFS", 3260: "iSCSI", 3300: "Ceph", 3632: "distcc", 3690: "Subversion", 6789: "Ceph", 8020: "HDFS", 9418: "git", 9870: "HDFS",
	10809: "NBD", 24007: "GlusterFS", 24008: "GlusterFS",

	// Directories, VPNs, telephony, chat, industry, and what else has its own protocol.
	1194: "OpenVPN", 1720: "H.323", 1723: "PPTP", 1812: "RADIUS", 1813: "RADIUS", 1900: "SSDP", 1935: "RTMP", 2404: "IEC 60870", 3268: "Active Directory",
	3269: "Active Directory", 4190: "ManageSieve", 4840: "OPC UA", 5060: "SIP", 5061: "SIP", 5222: "XMPP", 5269: "XMPP", 5280: "XMPP",
	6660: "IRC", 6661: "IRC", 6662: "IRC", 6663: "IRC", 6664: "IRC", 6665: "IRC", 6666: "IRC", 6667: "IRC", 6668: "IRC", 6669: "IRC", 6697: "IRC",
	8333: "Bitcoin", 11112: "DICOM", 20000: "DNP3", 25565: "Minecraft",
}
